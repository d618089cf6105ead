"""Matches by position against pixels tracked through the augmentations; filters against loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from densecl.config.params import ColorJitterParams, DataParams, ViewParams
from densecl.contrast.matching import (
    build_neighbour_mask,
    compute_crop_overlap,
    compute_match_similarity,
    compute_true_positions,
    find_true_matches,
    is_mutual_match,
    match_patches,
)
from densecl.datasets.views.crops import draw_crop, draw_crops
from densecl.datasets.views.two_views import augment_view
from densecl.training.diagnostics import measure_match_accuracy

PLAIN = DataParams(
    color_jitter=ColorJitterParams(brightness=0, contrast=0, saturation=0, hue=0),
    view1=ViewParams(scale=(0.2, 1)),
    view2=ViewParams(scale=(0.2, 1)),
)
GRID, SIDE = (4, 4), 32


def coordinate_image(size: int = 256) -> Image.Image:
    """Red increases to the right, green downwards: the colour of a pixel encodes its position."""
    across, down = np.meshgrid(np.arange(size), np.arange(size))
    return Image.fromarray(np.stack([across, down, 0 * down], 2).astype(np.uint8))


def test_true_positions_follow_the_pixels_through_crop_and_flip():
    image, checked, outside = coordinate_image(), 0, 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        crops = draw_crops(*image.size, PLAIN, rng)
        views = [
            augment_view(np.array(image), PLAIN.view1, crop, PLAIN, (SIDE, SIDE), rng)
            for crop in crops
        ]
        (first, where1), (second, where2) = (
            (v.double().permute(1, 2, 0)[..., :2], torch.tensor([g])) for v, g, _ in views
        )
        place = compute_true_positions(where1, where2, GRID)[0]  # [N, 2] in patches
        index, visible = (part[0] for part in find_true_matches(where1, where2, GRID))
        for n in range(16):
            row, column = (n // 4) * 8 + 4, (n % 4) * 8 + 4
            colour = first[row - 1 : row + 1, column - 1 : column + 1].mean(
                (0, 1)
            )  # at the patch's centre
            distance = (second - colour).norm(dim=-1)
            down, across = divmod(int(distance.argmin()), SIDE)
            if not visible[n]:
                outside += 1
                continue
            tracked = torch.tensor([down + 0.5, across + 0.5]) / 8
            assert (
                place[n] - tracked
            ).abs().max() < 0.2  # pixels of an eighth of a patch, and a level of rounding
            if (
                (place[n] % 1 - 0.5).abs() < 0.35
            ).all():  # away from patch borders the cell is certain
                assert index[n] == int(tracked[0]) * 4 + int(tracked[1])
                checked += 1
    assert checked > 150
    assert outside > 50


def test_flip_mirrors_columns_and_disjoint_crops_share_no_patch():
    whole, mirrored = torch.tensor([[0, 0, 1, 1, 0.0]]), torch.tensor([[0, 0, 1, 1, 1.0]])
    index, visible = find_true_matches(whole, mirrored, (2, 3))
    assert index.tolist() == [[2, 1, 0, 5, 4, 3]]
    assert visible.all()
    left, right = torch.tensor([[0, 0, 1, 0.4, 0.0]]), torch.tensor([[0, 0.5, 1, 0.5, 0.0]])
    assert not find_true_matches(left, right, (2, 2))[1].any()
    assert compute_crop_overlap(left, right).item() == 0
    assert compute_crop_overlap(torch.tensor([[0, 0, 1, 0.5, 0.0]]), whole).item() == pytest.approx(
        1
    )  # of the smaller


def test_contained_crop_has_overlap_one():
    generator = torch.Generator().manual_seed(0)
    outer = torch.rand(500, 4, generator=generator) * 0.4 + torch.tensor([0.0, 0.0, 0.3, 0.3])
    inner = torch.cat([outer[:, :2] + 0.1 * outer[:, 2:], 0.37 * outer[:, 2:]], 1)
    boxes = [torch.cat([box, torch.zeros(500, 1)], 1) for box in (outer, inner)]
    shared = compute_crop_overlap(*boxes)
    assert shared.max() <= 1
    assert torch.allclose(shared, torch.ones(500, dtype=torch.float64), atol=1e-6)
    figures = measure_match_accuracy({}, *boxes, (4, 4))
    truth, visible = find_true_matches(*boxes, (4, 4))
    same = (
        (build_neighbour_mask((4, 4))[truth, torch.arange(16).expand_as(truth)])[visible]
        .double()
        .mean()
    )
    assert figures["match/identity/overlap-0.75"] == pytest.approx(
        float(same)
    )  # no pair falls out of the bins


def test_mutual_match_and_similarity_follow_their_definitions():
    first, second = torch.randn(2, 9, 5), torch.randn(2, 9, 5)
    index, similar = match_patches(first, second), compute_match_similarity(first, second)
    both, back = is_mutual_match(first, second), match_patches(second, first)
    for b in range(2):
        for n in range(9):
            assert bool(both[b, n]) == (int(back[b, index[b, n]]) == n)
            assert similar[b, n].item() == pytest.approx(
                F.cosine_similarity(first[b, n], second[b, index[b, n]], dim=0).item(), abs=1e-6
            )


def test_min_overlap_is_reached_without_changing_the_first_crop():
    wanted = PLAIN.model_copy(update={"min_overlap": 0.5})
    for seed in range(40):
        first, second = draw_crops(100, 80, wanted, np.random.default_rng(seed))
        assert first == draw_crop(100, 80, PLAIN.view1, np.random.default_rng(seed))
        boxes = [
            torch.tensor([[top / 80, left / 100, height / 80, width / 100, 0]])
            for top, left, height, width in (first, second)
        ]
        assert compute_crop_overlap(*boxes).item() >= 0.5 - 1e-9


def test_accuracy_is_one_for_exact_features_and_low_for_positional_ones_on_moved_views():
    first = torch.tensor([[0, 0, 1, 1, 0.0]]).repeat(3, 1)
    second = torch.tensor([[0, 0, 1, 1, 0.0], [0, 0, 1, 1, 1.0], [0.5, 0.5, 0.5, 0.5, 0.0]])
    truth, visible = find_true_matches(first, second, GRID)
    codes = F.one_hot(torch.arange(16), 16).float()
    knows = (codes[truth], codes.repeat(3, 1, 1))
    found = measure_match_accuracy(
        {"knows": knows, "position": (knows[1], knows[1])}, first, second, GRID
    )
    assert (
        found["match/knows/within0"]
        == found["match/knows/within1"]
        == found["match/knows/moved0"]
        == 1
    )
    assert (
        found["match/visible"]
        == pytest.approx(float(visible.double().mean()))
        == pytest.approx((16 + 16 + 4) / 48)
    )
    assert found["match/position/within0"] == found["match/identity/within0"] < 0.6
    assert found["match/identity/moved0"] <= 1 / 20  # at most the last patch of the shifted pair
    assert found["match/chance/within0"] == 1 / 16
