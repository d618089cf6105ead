"""Correspondence against slow references in numpy, and features whose answers are known."""

import math
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch

from densecl.config.params import NetworkParams
from densecl.evaluation.frozen_features.blocks import select_blocks
from densecl.evaluation.probes import correspondence
from densecl.evaluation.probes.correspondence import (
    build_result,
    count_correct,
    count_matches,
    match_patches,
)
from densecl.evaluation.probing.draw import draw_evenly, rank_in_classes
from densecl.evaluation.stimuli.correspondence_warps import (
    KINDS,
    Warps,
    draw_warps,
    find_true_places,
    is_visible,
    list_centres,
    measure_distances,
    warp_images,
)
from densecl.network.vit import build_model
from densecl.seeding import derive_seed

GRID, SIZE = (4, 6), (32, 48)  # patches of 8 pixels
IDS = [f"imagenet/n{number % 3}/{number}.png" for number in range(7)]
ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}


def create_warps(matrix: list[list[float]], offset: list[float]) -> Warps:
    return Warps(
        torch.tensor([matrix], dtype=torch.float64), torch.tensor([offset], dtype=torch.float64)
    )


IDENTITY = create_warps([[1, 0], [0, 1]], [0, 0])


def find_places_slow(warps: Warps, image: int) -> np.ndarray:
    """[N, 2] by solving each patch's two equations with numpy."""
    matrix, offset = warps.matrix[image].numpy(), warps.offset[image].numpy()
    places = []
    for row in range(GRID[0]):
        for column in range(GRID[1]):
            x = (column + 0.5) * 8 - SIZE[1] / 2
            y = (row + 0.5) * 8 - SIZE[0] / 2
            there = np.linalg.inv(matrix) @ (np.array([x, y]) - offset)
            places.append(((there[1] + SIZE[0] / 2) / 8, (there[0] + SIZE[1] / 2) / 8))
    return np.array(places)


def warp_slow(image: np.ndarray, matrix: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """[3, H, W]: each pixel by itself, bilinear between pixel centres, 0 outside."""
    _, height, width = image.shape
    warped = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            place = np.array([column + 0.5 - width / 2, row + 0.5 - height / 2])
            x, y = matrix @ place + offset + [width / 2 - 0.5, height / 2 - 0.5]
            left, top = math.floor(x + 1e-9), math.floor(y + 1e-9)
            for r in (top, top + 1):
                for c in (left, left + 1):
                    weight = max(0, 1 - abs(y - r)) * max(0, 1 - abs(x - c))
                    if 0 <= r < height and 0 <= c < width:
                        warped[:, row, column] += weight * image[:, r, c]
    return warped


def read_warp(kind: str, image_id: str, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A and b by the definitions in docs/probes/correspondence.md."""
    generator = torch.Generator().manual_seed(derive_seed(0, "warp", kind, image_id))
    u = torch.rand(4, generator=generator).tolist()
    if kind == "flip":
        return np.diag([-1.0, 1.0]), np.zeros(2)
    if kind == "shift":
        x = math.floor(width * (0.25 + 0.25 * u[1])) * (1 if u[0] < 0.5 else -1)
        y = math.floor(height * (0.25 + 0.25 * u[3])) * (1 if u[2] < 0.5 else -1)
        return np.eye(2), np.array([x, y], dtype=float)
    if kind == "crop":
        share = 0.4 + 0.35 * u[0]
        free = (1 - share) * np.array([width * (u[1] - 0.5), height * (u[2] - 0.5)])
        return np.eye(2) * share, free
    angle = np.radians(30 + 60 * u[1]) * (1 if u[0] < 0.5 else -1)
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]), np.zeros(2)


@pytest.mark.parametrize("kind", KINDS)
def test_warps_are_the_documented_ones(kind):
    warps = draw_warps(kind, IDS, SIZE)
    for number, image_id in enumerate(IDS):
        matrix, offset = read_warp(kind, image_id, *SIZE)
        np.testing.assert_allclose(warps.matrix[number], matrix, atol=1e-12)
        np.testing.assert_allclose(warps.offset[number], offset, atol=1e-12)
        places = find_true_places(warps, SIZE, GRID)[number].numpy()
        np.testing.assert_allclose(places, find_places_slow(warps, number), atol=1e-9)


def test_a_warp_depends_on_its_image_only():
    for kind in KINDS:
        together, alone = draw_warps(kind, IDS, SIZE), draw_warps(kind, IDS[3:4], SIZE)
        assert torch.equal(together.matrix[3:4], alone.matrix)
        assert torch.equal(together.offset[3:4], alone.offset)
    assert len({tuple(offset) for offset in draw_warps("shift", IDS, SIZE).offset.tolist()}) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_interpolated_between_their_centres(kind):
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    warps = draw_warps(kind, IDS[:1], (16, 24))
    expected = warp_slow(
        image[0].double().numpy(), warps.matrix[0].numpy(), warps.offset[0].numpy()
    )
    np.testing.assert_allclose(warp_images(image, warps)[0], expected, atol=1e-4)


def test_no_warp_changes_nothing():
    images = torch.rand(1, 3, *SIZE)
    torch.testing.assert_close(warp_images(images, IDENTITY), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(find_true_places(IDENTITY, SIZE, GRID)[0], list_centres(GRID))


@pytest.mark.parametrize("kind", KINDS)
def test_a_spot_is_seen_at_its_true_place(kind):
    """Pixels and places are of one geometry: the centre of gravity of a spot on a patch's centre."""
    size, grid = (96, 96), (12, 12)
    warps = draw_warps(kind, IDS, size)
    places = find_true_places(warps, size, grid)
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    checked = 0
    for patch in range(0, 144, 7):
        row, column = (place * 8 for place in list_centres(grid)[patch])
        spot = torch.exp(-((y - row) ** 2 + (x - column) ** 2) / 8)
        warped = warp_images(spot.expand(len(IDS), 3, -1, -1).float(), warps)[:, 0].double()
        for image, place in enumerate(places[:, patch] * 8):
            if not ((place > 14) & (place < 82)).all() or not 12 < row < 84 or not 12 < column < 84:
                continue  # a part of the spot is not seen
            mass = warped[image].sum()
            seen = torch.stack([(warped[image] * y).sum(), (warped[image] * x).sum()]) / mass
            torch.testing.assert_close(seen, place, atol=0.05, rtol=0)
            checked += 1
    assert checked > 10


def count_slow(match: np.ndarray, places: np.ndarray, tolerance: float) -> dict[str, float]:
    """The counts of one image and one warp, patch by patch."""
    counts = dict.fromkeys(("pck", "pck/f", "pck/chance", "moved", "moved/f", "moved/chance"), 0.0)
    for patch, (row, column) in enumerate(places):
        if not (0 <= row < GRID[0] and 0 <= column < GRID[1]):
            continue
        near = [
            math.hypot(m // GRID[1] + 0.5 - row, m % GRID[1] + 0.5 - column) <= tolerance
            for m in range(GRID[0] * GRID[1])
        ]
        for curve in ("pck", "moved"):
            if curve == "pck" or not near[patch]:
                counts[curve] += 1
                counts[f"{curve}/f"] += near[match[patch]]
                counts[f"{curve}/chance"] += sum(near) / len(near)
    return counts


@pytest.mark.parametrize("kind", ["shift", "crop", "rotation"])
def test_counts_equal_those_made_patch_by_patch(kind):
    places = find_true_places(draw_warps(kind, IDS, SIZE), SIZE, GRID)
    matches = torch.randint(24, (len(IDS), 24), generator=torch.Generator().manual_seed(0))
    counts = count_correct({"f": matches}, places, GRID, (1, 2))
    for tolerance in (1, 2):
        for image in range(len(IDS)):
            slow = count_slow(matches[image].numpy(), places[image].numpy(), tolerance)
            for name, value in slow.items():
                curve, _, answer = name.partition("/")
                key = f"{curve}{tolerance}" + (f"/{answer}" if answer else "")
                assert counts[key][image].item() == pytest.approx(value, abs=1e-9), (key, image)


@pytest.mark.parametrize("kind", KINDS)
def test_an_oracle_finds_every_patch_and_a_constant_the_first(kind):
    places = find_true_places(draw_warps(kind, IDS, SIZE), SIZE, GRID)
    oracle = measure_distances(places, GRID).argmin(2)
    constant = match_patches(torch.ones(7, 24, 5), torch.ones(7, 24, 5))
    assert constant.eq(0).all()  # of equal cosines the first patch counts
    own = torch.arange(24).expand(7, -1)
    counts = count_correct({"oracle": oracle, "constant": constant, "own": own}, places, GRID, (1,))
    assert torch.equal(counts["pck1/oracle"], counts["pck1"])
    assert torch.equal(counts["moved1/oracle"], counts["moved1"])
    near_first = (places - 0.5).norm(dim=2) <= 1 + 1e-6
    assert torch.equal(
        counts["pck1/constant"], (near_first & is_visible(places, GRID)).sum(1).double()
    )
    assert torch.equal(counts["pck1/own"], counts["pck1/same-index"])
    assert counts["moved1/own"].eq(0).all()


def test_a_flip_by_hand():
    """6 columns: all but the two in the middle move by more than one patch; of a patch in the
    inside 5 of 24 are within one patch, on an edge 4, in a corner 3.
    """
    places = find_true_places(draw_warps("flip", IDS[:1], SIZE), SIZE, GRID)
    counts = count_correct({}, places, GRID, (1,))
    assert counts["pck1"].item() == 24
    assert counts["pck1/same-index"].item() == 8
    assert counts["moved1"].item() == 16
    chance = (4 * 3 + 12 * 4 + 8 * 5) / 24
    assert counts["pck1/chance"].item() == pytest.approx(chance)


def test_matches_are_those_of_float64_cosines():
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(2, 9, 5, generator=generator) for _ in range(2))
    a, b = first.double().numpy(), second.double().numpy()
    for image in range(2):
        for patch in range(9):
            cosines = [
                a[image, patch] @ other / np.linalg.norm(a[image, patch]) / np.linalg.norm(other)
                for other in b[image]
            ]
            assert match_patches(first, second)[image, patch].item() == int(np.argmax(cosines))


def create_model(*, sees_pixels: bool = True, knows_position: bool = True):
    model = build_model(NetworkParams(model_name="vit_tiny_patch16_224", model_args=ARGS), 3, 0)
    with torch.no_grad():
        if not sees_pixels:
            model.patch_embed.proj.weight.zero_()
        if not knows_position:
            model.pos_embed.zero_()
    return model.eval()


def score(model, images: torch.Tensor) -> dict[str, float]:
    """Values of the measures, as `measure` computes them."""
    counts = count_matches(model, images, IDS, (1, 2))
    rows = pd.DataFrame({"image_id": IDS, "source": IDS})
    result = build_result(rows, counts, select_blocks(3), (1, 2))
    assert {*result.rows} == {"image_id", "source", *result.measures}
    return {name: measure.value for name, measure in result.measures.items()}


def test_a_model_that_knows_positions_only_is_exposed():
    images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    values = score(create_model(sees_pixels=False), images)
    for tolerance, block in product((1, 2), ("next-to-last", "last")):
        assert values[f"pck{tolerance}/{block}"] == values[f"pck{tolerance}/same-index"] > 0.2
        assert values[f"moved{tolerance}/{block}"] == 0
    constant = score(create_model(sees_pixels=False, knows_position=False), images)
    first = count_matches(create_model(sees_pixels=False, knows_position=False), images, IDS, (1,))
    assert constant["moved1/last"] == constant["moved1/next-to-last"] > 0
    places = find_true_places(draw_warps("flip", IDS, (32, 32)), (32, 32), (4, 4))
    by_hand = count_correct({"last": torch.zeros(7, 16, dtype=torch.int64)}, places, (4, 4), (1,))
    assert torch.equal(first["flip"]["moved1/last"], by_hand["moved1/last"])


def test_the_size_of_batches_and_chunks_does_not_matter(monkeypatch):
    images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    model = create_model()
    together = count_matches(model, images, IDS, (1,))
    monkeypatch.setattr(correspondence, "CHUNK", 2)
    alone = [count_matches(model, images[n : n + 1], IDS[n : n + 1], (1,)) for n in range(7)]
    for kind, counts in count_matches(model, images, IDS, (1,)).items():
        for name, values in counts.items():
            assert torch.equal(values, together[kind][name])
            assert torch.equal(values, torch.cat([part[kind][name] for part in alone]))


def test_where_no_patch_moves_so_far_there_is_a_reason():
    counts = {
        kind: count_correct(
            {"last": torch.zeros(1, 4, dtype=torch.int64)},
            find_true_places(draw_warps(kind, IDS[:1], (16, 16)), (16, 16), (2, 2)),
            (2, 2),
            (3,),
        )
        for kind in KINDS
    }
    result = build_result(pd.DataFrame({"image_id": IDS[:1]}), counts, {"last": 0}, (3,))
    assert "moved3/last" in result.missing
    assert "pck3/last" in result.measures


def test_blocks_that_coincide_are_one():
    assert select_blocks(12) == {"middle": 5, "next-to-last": 10, "last": 11}
    assert select_blocks(4) == {"middle": 1, "next-to-last": 2, "last": 3}
    assert select_blocks(3) == {"next-to-last": 1, "last": 2}
    assert select_blocks(2) == {"next-to-last": 0, "last": 1}
    assert select_blocks(1) == {"last": 0}


def test_images_are_drawn_evenly_over_classes():
    ids, labels = [f"i{number}" for number in range(30)], [0] * 20 + [1] * 8 + [2] * 2
    drawn = draw_evenly("w", ids, labels, 12)
    assert list(drawn) == sorted(set(drawn.tolist()))
    assert np.bincount(np.array(labels)[drawn]).tolist() == [5, 5, 2]
    assert draw_evenly("w", ids, labels, 99).tolist() == list(range(30))
    smaller = draw_evenly("w", ids, labels, 6)
    assert set(smaller.tolist()) < set(drawn.tolist())
    ranks = rank_in_classes("w", ids, labels)
    assert sorted(ranks[:20].tolist()) == list(range(20))
    assert ranks[20:].tolist() != sorted(ranks[20:].tolist())
