"""The registered model sees 16-bit greyscale as training does."""

import contextlib
import io

import cv2
import numpy as np
import pytest
from PIL import Image

from densecl.datasets.storage.decode import convert_to_rgb
from pipelines.registry.mlflow_model import Classifier


@pytest.mark.parametrize("highest", [200, 1000, 4000, 16000, 65535])
def test_sixteen_bits_are_scaled_as_in_training(highest):
    levels = np.linspace(0, highest, 64, dtype=np.uint16).reshape(8, 8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    model = Classifier()
    model.turns_upright, model.transform = False, np.asarray
    decoded = model._decode_image(0, file.getvalue())
    expected = np.asarray(convert_to_rgb(Image.open(file)))
    assert np.array_equal(decoded, expected)
    assert len(np.unique(decoded)) > 32


def test_levels_without_a_known_range_are_refused():
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(file, "TIFF")
    model = Classifier()
    model.turns_upright, model.transform = False, np.asarray
    with pytest.raises(ValueError, match="image 3: grey levels that are negative, fractions"):
        model._decode_image(3, file.getvalue())


def _write_white_is_zero(file: io.BytesIO) -> None:
    levels = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(file, "TIFF", tiffinfo={262: 0})


def _write_strip(file: io.BytesIO) -> None:
    Image.new("RGB", (2510, 10)).save(file, "PNG")


def _write_dark_colour(file: io.BytesIO) -> None:
    pixels = np.full((8, 8, 3), 1000, np.uint16)
    file.write(cv2.imencode(".png", pixels)[1].tobytes())


@pytest.mark.parametrize("write", [_write_white_is_zero, _write_strip, _write_dark_colour])
def test_what_is_odd_is_done_or_refused_as_in_training(write):
    file = io.BytesIO()
    write(file)
    model = Classifier()
    model.turns_upright, model.transform = False, np.asarray
    expected = None
    with contextlib.suppress(ValueError):
        expected = np.asarray(convert_to_rgb(Image.open(file)))
    if expected is None:
        with pytest.raises(ValueError, match="image 0: "):
            model._decode_image(0, file.getvalue())
    else:
        assert np.array_equal(model._decode_image(0, file.getvalue()), expected)
    assert (expected is None) == (write is not _write_white_is_zero)
