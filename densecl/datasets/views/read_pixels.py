"""Decode images for training with OpenCV's JPEG build, bit-identical to Pillow and faster."""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densecl.datasets.storage.decode import decode_image
from densecl.datasets.storage.image_root import read_file

Pixels = NDArray[np.uint8]

JPEG_END = b"\xff\xd9"  # missing in a truncated file, of which OpenCV would fill the rest with grey
READ_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def read_pixels(path: Path) -> Pixels:
    """Decode an image to writable RGB [H, W, 3]; equals `decode_image(path)` and raises the same
    errors.
    """
    try:
        content = read_file(path)
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as header:  # reads no pixel
            plain = header.mode in ("RGB", "L") and content.endswith(JPEG_END)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        plain = False
    decoded = cv2.imdecode(np.frombuffer(content, np.uint8), READ_FLAGS) if plain else None
    return np.array(decode_image(path)) if decoded is None else np.asarray(decoded, np.uint8)
