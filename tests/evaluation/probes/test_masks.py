"""Masks of images that a project turns upright; entries of which a part is left out; masks without
background.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from densecl import paths
from densecl.config.probe_params import LocalisationParams, OcclusionParams, ProbesParams
from densecl.datasets.storage.decode import TURNS
from densecl.datasets.storage.transfer import describe_left_out
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.probes import localisation, occlusion
from densecl.evaluation.probing.run import run_probe
from densecl.evaluation.probing.transfer import load_images
from tests.evaluation.probes.transfer_project import (
    SIDE,
    TransferParams,
    build_context,
    colour_classes,
    list_pairs,
    write_pair,
)


@pytest.fixture
def entry(tmp_path, monkeypatch) -> TransferParams:
    """Images that are white where their mask is 1, one for each EXIF orientation."""
    monkeypatch.chdir(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    object_pixels = np.zeros((SIDE, SIDE), np.uint8)
    object_pixels[2:20, 3:9] = object_pixels[2:7, 3:28] = 255  # no turn leaves it as it is
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = Image.fromarray(object_pixels)
        image.save(tmp_path / f"masks/{orientation}.png")
        image.save(tmp_path / f"images/{orientation}.png", exif=exif)
    return list_pairs("objects", tmp_path, "object")


@pytest.mark.parametrize("exif", ["ignore", "apply"])
def test_a_mask_is_turned_as_its_image_is(entry, exif):
    images = load_images(build_context(objects=entry), "objects", exif)
    (pixels,) = images.iter_images(len(TURNS) + 1)
    masks = images.read_masks()
    assert (masks == (pixels[:, 0] >= 128).numpy()).all()
    assert len({mask.tobytes() for mask in masks}) == (8 if exif == "apply" else 1)


def test_masks_and_boxes_of_an_entry_are_of_the_pixels_as_stored(entry):
    context = build_context(objects=entry)
    context.preprocessing = context.preprocessing.model_copy(update={"exif": "apply"})
    images = load_images(context, "objects")
    assert images == replace(images, preprocessing=build_context().preprocessing)


def test_images_that_are_left_out_are_told_with_the_reason(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:9, :9] = 1
    for name in "abc":
        write_pair(tmp_path, name, colour_classes(mask, name), mask)
    list_pairs("whole", tmp_path)
    assert describe_left_out("whole", paths.transfer_file("whole")) == ()
    for name in "bc":  # colours
        Image.fromarray(np.dstack([mask] * 3)).save(tmp_path / f"masks/{name}.png")
    entry = list_pairs("part", tmp_path)
    (said,) = describe_left_out("part", paths.transfer_file("part"))
    assert said.startswith("of the 3 images of transfer.part, 2 (mask: found a PNG of mode RGB")
    context = build_context(part=entry)
    context.evaluator = SimpleNamespace(
        predictor=SimpleNamespace(images_run=0, identity="x"), mode="none", seed=0
    )
    context.plan.probes = ProbesParams.model_validate({"localisation": {"test": "part"}})
    context.plan.training = None
    context.frame = pd.DataFrame({"image_id": [], "label": [], "sha256": []})
    context.scored_indices = None
    evaluation, _ = run_probe("localisation", context, CellCache(None))
    assert said in evaluation.notes


def test_masks_without_background_are_told(tmp_path, monkeypatch):
    """Such as trimaps, in which 2 is the background."""
    monkeypatch.chdir(tmp_path)
    mask = np.full((SIDE, SIDE), 2)
    mask[4:20, 4:20] = 1
    write_pair(tmp_path, "a", colour_classes(mask), mask)
    context = build_context(test=list_pairs("test", tmp_path))
    notes = localisation.measure(context, LocalisationParams(test="test")).notes
    assert any("every image of test has an object that fills it" in note for note in notes)
    monkeypatch.setattr(occlusion, "load_object_shares", lambda *_: torch.ones(3, 16))
    _, note = occlusion.find_saliency(context, OcclusionParams(masks="test"))
    assert "which 3 of 3 images have; no mask has background (0)" in note
