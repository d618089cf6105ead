"""Masks of images that a project turns upright."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from densecl.datasets.storage.decode import TURNS
from densecl.evaluation.probing.transfer import load_images
from tests.evaluation.probes.transfer_project import (
    SIDE,
    TransferParams,
    build_context,
    list_pairs,
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
