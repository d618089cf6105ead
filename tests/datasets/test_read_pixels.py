"""Pixels for training beside Pillow's."""

import numpy as np
import pytest
from PIL import Image

from densecl.datasets.storage.decode import decode_image
from densecl.datasets.views.read_pixels import read_pixels
from densecl.errors import DataError

rng = np.random.default_rng(0)
NOISE = rng.integers(0, 256, (37, 53, 3)).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_pillows_to_the_bit(tmp_path, mode, subsampling, progressive):
    path = tmp_path / "image.JPEG"
    Image.fromarray(NOISE).convert(mode).save(
        path, quality=80, subsampling=subsampling, progressive=progressive
    )
    found = read_pixels(path)
    assert np.array_equal(found, np.asarray(decode_image(path)))
    assert found.flags.writeable


def test_orientation_is_passed_over_as_in_evaluation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(NOISE).save(tmp_path / "turned.jpg", exif=exif)
    assert read_pixels(tmp_path / "turned.jpg").shape == NOISE.shape


@pytest.mark.parametrize("extension", ["png", "webp"])
def test_other_formats_are_pillows(tmp_path, extension):
    Image.fromarray(NOISE).save(tmp_path / f"image.{extension}")
    assert np.array_equal(
        read_pixels(tmp_path / f"image.{extension}"),
        np.asarray(decode_image(tmp_path / f"image.{extension}")),
    )


def test_a_file_cut_short_after_validation_is_an_error_and_not_half_grey(tmp_path):
    path = tmp_path / "image.jpg"
    Image.fromarray(NOISE).save(path)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"image.jpg: truncated"):
        read_pixels(path)
    with pytest.raises(DataError, match="cannot be opened"):
        read_pixels(tmp_path / "none.jpg")


@pytest.mark.slow
def test_every_photograph_of_the_suite_is_pillows(suite):
    paths = [*(suite / "full").glob("*"), *sorted((suite / "imagenet" / "train").glob("*/*"))[::20]]
    assert len(paths) > 300
    for path in paths:
        assert np.array_equal(read_pixels(path), np.asarray(decode_image(path))), path
