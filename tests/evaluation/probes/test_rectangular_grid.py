"""Probes of tokens on a grid of 2 x 3 patches of 8 px: rows and columns are not exchanged."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

from densecl.config.probe_params import LocalisationParams, SegmentationParams
from densecl.evaluation.other_models import find_token_problem
from densecl.evaluation.probes import localisation, segmentation
from densecl.evaluation.probes.correspondence import count_matches
from densecl.evaluation.stimuli.correspondence_warps import draw_warps, find_true_places
from densecl.network.attention import compute_cls_attention
from tests.evaluation.probes.transfer_project import (
    PREPROCESSING,
    build_context,
    colour_classes,
    list_pairs,
    write_pair,
)

HEIGHT, WIDTH, PATCH = 16, 24, 8
ARGS = {"patch_size": PATCH, "embed_dim": 24, "depth": 2, "num_heads": 2}


def build_rectangular_context(**transfer):
    context = build_context(**transfer)
    torch.manual_seed(0)
    context.model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(HEIGHT, WIDTH), num_classes=3, **ARGS
    ).eval()
    assert context.model.patch_embed.grid_size == (2, 3)
    assert not find_token_problem(context.model)
    context.preprocessing = PREPROCESSING.model_copy(update={"input_size": (3, HEIGHT, WIDTH)})
    return context


def write_objects(root: Path, places: list[tuple[int, int]]) -> None:
    """Each image shows an object of one patch, at a row and column of patches."""
    for number, (row, column) in enumerate(places):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        y, x = row * PATCH, column * PATCH
        mask[y : y + PATCH, x : x + PATCH] = 1
        write_pair(root, f"{number}", colour_classes(mask, f"{root.name}{number}"), mask)


def encode_colour(context, images, blocks):
    red = F.avg_pool2d(images[:, :1].float(), PATCH).flatten(1)
    return {name: F.one_hot((red / 40).round().long(), 4).float() for name in blocks}


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    monkeypatch.chdir(tmp_path)
    for name, places in (
        ("fit", [(0, 0), (1, 2), (0, 2)]),
        ("test", [(1, 0), (0, 1), (1, 1), (1, 2)]),
    ):
        write_objects(tmp_path / name, places)
    return tmp_path / "fit", tmp_path / "test"


def test_patches_of_known_content_are_segmented_at_their_place(roots, monkeypatch):
    monkeypatch.setattr(segmentation, "compute_tokens", encode_colour)
    fit, test = (list_pairs(root.name, root) for root in roots)
    context = build_rectangular_context(fit=fit, test=test)
    result = segmentation.measure(context, SegmentationParams(fit="fit", test="test"))
    assert result.pictures["prediction"].shape == (4, HEIGHT, WIDTH)
    centres = (slice(None), slice(PATCH // 2, None, PATCH), slice(PATCH // 2, None, PATCH))
    predicted, truth = (result.pictures[name][centres] for name in ("prediction", "truth"))
    assert truth.sum() == 4
    assert np.array_equal(predicted, truth)


def test_an_object_of_one_patch_is_found_at_its_place(roots, monkeypatch):
    monkeypatch.setattr(localisation, "compute_tokens", encode_colour)
    context = build_rectangular_context(test=list_pairs("test", roots[1]))

    def attend_object(model, images):
        shown = encode_colour(None, images * 127.5 + 127.5, ["last"])["last"][:, None, :, 1]
        return (0.01 + 0.8 * shown).expand(-1, 2, -1)

    monkeypatch.setattr(localisation, "compute_cls_attention", attend_object)
    rows = localisation.measure(context, LocalisationParams(test="test")).rows
    assert rows["iou/attention"].tolist() == [1, 1, 1, 1]
    assert rows["iou/last"].tolist() == [1, 1, 1, 1]


def test_correspondence_of_a_model_that_knows_positions_only():
    images = torch.randn(4, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    names = [f"val/{number}.png" for number in range(4)]
    places = find_true_places(draw_warps("flip", names, (HEIGHT, WIDTH)), (HEIGHT, WIDTH), (2, 3))
    expected = [[row + 0.5, 2.5 - column] for row in range(2) for column in range(3)]
    torch.testing.assert_close(places[0], torch.tensor(expected, dtype=torch.float64))
    model = build_rectangular_context().model
    with torch.no_grad():
        model.patch_embed.proj.weight.zero_()
    for counts in count_matches(model, images, names, (1,)).values():
        assert torch.equal(counts["pck1/last"], counts["pck1/same-index"])
        assert counts["moved1/last"].eq(0).all()
    assert compute_cls_attention(model, images).shape == (4, 2, 6)
