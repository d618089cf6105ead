"""Localisation: parts against slow references; boxes and CorLoc of drawn objects by hand."""

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from PIL import Image

from densecl.config.probe_params import LocalisationParams
from densecl.errors import DataError
from densecl.evaluation.frozen_features.object_boxes import (
    compute_iou,
    cut_tokens,
    find_box,
    find_mask_boxes,
    keep_attended,
)
from densecl.evaluation.probes import localisation
from densecl.evaluation.probing.transfer import Box, locate_pixels
from tests.evaluation.probes.transfer_project import (
    PATCH,
    PREPROCESSING,
    SIDE,
    build_context,
    colour_classes,
    list_entry,
    list_pairs,
    write_pair,
)

PARAMS = LocalisationParams(test="test")
RNG = np.random.default_rng(0)


def test_iou_as_counted_pixel_by_pixel():
    for _ in range(50):
        boxes = []
        for _ in range(2):
            (x0, x1), (y0, y1) = (sorted(RNG.choice(9, 2, replace=False)) for _ in range(2))
            boxes.append(Box("", x0, y0, x1, y1))
        inside = [{(x, y) for x in range(b.x0, b.x1) for y in range(b.y0, b.y1)} for b in boxes]
        expected = len(inside[0] & inside[1]) / len(inside[0] | inside[1])
        assert compute_iou(*boxes) == pytest.approx(expected)


def test_the_attended_patches_hold_the_share_of_the_mass():
    for _ in range(20):
        attention = torch.from_numpy(RNG.dirichlet(np.ones(12) / 2).astype(np.float32)) * 0.7
        kept = keep_attended(attention, (3, 4)).flatten()
        mass, expected = 0.0, set()
        for patch in sorted(range(12), key=lambda i: float(attention[i])):
            mass += float(attention[patch]) / float(attention.sum())
            if mass > 0.4:
                expected.add(patch)
        assert set(np.flatnonzero(kept)) == expected
    assert keep_attended(torch.tensor([0.7, 0.1, 0.1, 0.1]), (2, 2)).sum() == 1


def flood(mask: np.ndarray, start: tuple[int, int]) -> set[tuple[int, int]]:
    found, todo = set(), [start]
    while todo:
        y, x = todo.pop()
        inside = 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]
        if inside and mask[y, x] and (y, x) not in found:
            found.add((y, x))
            todo += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
    return found


def test_the_box_is_around_the_largest_component():
    for _ in range(30):
        mask = RNG.random((6, 7)) < 0.45
        parts = [flood(mask, (y, x)) for y, x in np.argwhere(mask)]
        largest = max(parts, key=len)
        rows, columns = zip(*largest, strict=True)
        expected = (min(columns) * 4, min(rows) * 3, max(columns) * 4 + 4, max(rows) * 3 + 3)
        assert tuple(find_box(mask, (3, 4)))[1:] == expected
    assert tuple(find_box(np.zeros((2, 3), bool), (8, 8)))[1:] == (0, 0, 24, 16)


def test_the_cut_is_the_generalised_eigenvector_s():
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(6, 12, 4, generator=rng)
    for tokens in images:
        mask = cut_tokens(tokens, (3, 4))
        weights = np.empty((12, 12))
        for i in range(12):
            for j in range(12):
                a, b = tokens[i].double(), tokens[j].double()
                weights[i, j] = 1 if a @ b / (a.norm() * b.norm()) > 0.2 else 1e-5
        degrees = np.diag(weights.sum(1))
        _, vectors = scipy.linalg.eigh(degrees - weights, degrees)
        y = vectors[:, 1]
        part = y > y.mean()
        assert (mask.flatten() == (part == part[np.abs(y).argmax()])).all()


def test_a_planted_object_is_cut_out_and_equal_tokens_have_no_cut():
    planted = np.zeros((4, 4), bool)
    planted[1:3, 2:4] = True
    tokens = F.one_hot(torch.from_numpy(planted).flatten().long(), 3).float()
    # The smaller part has the larger values.
    assert (cut_tokens(tokens, (4, 4)) == planted).all()
    assert cut_tokens(torch.ones(16, 3), (4, 4)).all()


@pytest.mark.parametrize("pair", [(3, 12), (14, 5), (0, 15)])
def test_a_cut_between_two_patches_takes_the_first_of_them(pair):
    """All other patches lie at the mean of the eigenvector, but for rounding."""
    angles = torch.zeros(16)  # between tokens: 50 degrees, and 100 within the pair, of cosine -0.17
    angles[list(pair)] = torch.tensor([50.0, -50.0]).deg2rad()
    tokens = torch.stack([angles.cos(), angles.sin()], 1)
    for scaled in (tokens, tokens * torch.rand(16, 1, generator=torch.Generator().manual_seed(0))):
        (place,) = np.flatnonzero(cut_tokens(scaled, (4, 4)))
        assert place == min(pair)


def test_boxes_around_the_components_of_each_class():
    values = np.zeros((8, 8), np.uint8)
    values[1:3, 1:4], values[5:7, 5:8], values[3, :3], values[7, 0] = 2, 2, 5, 255
    assert find_mask_boxes(values, 255) == [
        Box("2", 1, 1, 4, 3),
        Box("2", 5, 5, 8, 7),
        Box("5", 0, 3, 3, 4),
    ]


def draw_object(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "test"


def encode_colour(context, images, blocks):
    red = F.avg_pool2d(images[:, :1].float(), PATCH).flatten(1)
    return {name: F.one_hot((red / 40).round().long(), 4).float() for name in blocks}


def attend_first_patch(model, images):
    attention = torch.full((len(images), 2, 16), 0.01)
    attention[:, :, 0] = 0.8
    return attention


def test_boxes_that_are_known_give_what_is_computed_by_hand(root, monkeypatch):
    monkeypatch.setattr(localisation, "compute_tokens", encode_colour)
    monkeypatch.setattr(localisation, "compute_cls_attention", attend_first_patch)
    drawn = draw_object(8, 8, 24, 16)
    write_pair(root, "0", colour_classes(drawn), drawn)
    write_pair(root, "1", colour_classes(drawn), draw_object(8, 8, 24, 26))  # masks 16 x 18
    write_pair(root, "2", colour_classes(drawn), draw_object(0, 0, 10, 8))
    write_pair(root, "3", colour_classes(drawn), np.zeros((SIDE, SIDE)))  # no object
    context = build_context(test=list_pairs("test", root))
    result = localisation.measure(context, PARAMS)
    values = {name: measure.value for name, measure in result.measures.items()}
    assert result.rows["iou/last"].tolist()[:3] == pytest.approx([1, 8 / 18, 2 * 8 * 0 / 1])
    assert values["corloc/last"] == pytest.approx(1 / 3)
    assert values["iou/attention"] == pytest.approx((0 + 0 + 64 / 80) / 3)
    assert values["corloc/attention"] == pytest.approx(1 / 3)
    assert values["iou/image"] == pytest.approx((128 + 16 * 18 + 80) / 1024 / 3)
    centre = (16 * 8 / 256, 256 / 288, 2 * 0)
    assert result.rows["iou/centre"].tolist()[:3] == pytest.approx(
        [centre[0], 16 * 16 / (16 * 18), 0]
    )
    assert values["corloc/centre"] == pytest.approx(1 / 3)  # half is not above 0.5
    assert result.measures["iou/last"].chance == pytest.approx(
        max(values["iou/image"], values["iou/centre"])
    )
    assert np.isnan(result.rows.loc[3, ["iou/last", "corloc/image"]].astype(float)).all()
    assert result.measures["iou/last"].images == 3
    assert result.notes == ("1 images of test show no labelled object",)


def test_boxes_of_voc_go_through_the_geometry_of_the_image(root):
    """64 x 32 px to 32 x 32: of the width, 16 to 48 is left."""
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    pixels = RNG.integers(0, 255, (32, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "JPEGImages" / "a.png")
    boxes = ((21, 5, 40, 12), (1, 1, 30, 32), (60, 1, 64, 4))  # from 1, the last included
    (root / "Annotations" / "a.xml").write_text(
        "<annotation>"
        + "".join(
            f"<object><name>o{i}</name><bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin>"
            f"<xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
            for i, (x0, y0, x1, y1) in enumerate(boxes)
        )
        + "</annotation>"
    )
    context = build_context(test=list_entry("test", root, layout="voc"))
    images = localisation.load_images(context, "test")
    assert images.read_boxes() == [[Box("o0", 4, 4, 24, 12), Box("o1", 0, 0, 14, 32)]]
    result = localisation.measure(context, PARAMS)
    assert result.rows["iou/image"].tolist() == pytest.approx([14 / 32])


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(32, 64), (50, 37), (9, 9)])
def test_masks_go_through_the_geometry_of_timm(crop_mode, size):
    from timm.data import create_transform

    preprocessing = PREPROCESSING.model_copy(update={"crop_mode": crop_mode, "crop_pct": 0.9})
    rows, columns = locate_pixels(size, preprocessing)
    values = RNG.integers(1, 255, size, dtype=np.uint8)
    settings = preprocessing.model_dump(exclude={"rule", "border"}) | {"interpolation": "nearest"}
    transform = create_transform(**settings, is_training=False, normalize=False)
    if crop_mode == "border":
        transform.transforms[1].fill = 0
    expected = transform(Image.fromarray(values))[0].numpy()
    inside = (rows >= 0)[:, None] & (columns >= 0)
    assert (np.where(inside, values[rows[:, None], columns], 0) == expected).all()
    assert (~inside).any() == (crop_mode == "border" and size != (9, 9))


def test_real_tokens_in_batches_of_any_size(root):
    for number in range(5):
        y, x = RNG.integers(0, 16, 2)
        mask = draw_object(x, y, x + 16, y + 12)
        write_pair(root, f"{number}", colour_classes(mask), 255 * mask)
    params = list_pairs("test", root, mask_values="object")
    first, second = (
        localisation.measure(build_context(batch_size=size, test=params), PARAMS).rows
        for size in (5, 2)
    )
    assert first.equals(second)
    assert {"corloc/attention", "iou/next-to-last", "corloc/last"} < set(first.columns)
    assert first.filter(like="iou/").to_numpy().min() >= 0


def test_a_model_without_attention_has_a_reason_in_its_place(root):
    write_pair(root, "0", colour_classes(draw_object(0, 0, 9, 9)), draw_object(0, 0, 9, 9))
    context = build_context(test=list_pairs("test", root))
    context.model.blocks[-1].attn = torch.nn.Identity()
    missing = localisation.find_missing(context)
    assert set(missing) == {"corloc/attention", "iou/attention"}
    assert "expected one softmax attention" in missing["iou/attention"]


def test_images_without_objects_are_refused(root):
    write_pair(root, "0", colour_classes(draw_object(0, 0, 9, 9)), draw_object(0, 0, 9, 9))
    context = build_context(test=list_entry("test", root / "images"))
    with pytest.raises(DataError, match="none of its 1 images shows an object in a mask or a box"):
        localisation.measure(context, PARAMS)
