"""Pixels of an image file, for training: Pillow's to the bit, from OpenCV's quicker build of the
same JPEG library.
"""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densecl.datasets.storage.decode import decode
from densecl.datasets.storage.image_root import read

Pixels = NDArray[np.uint8]

END = b"\xff\xd9"  # of a JPEG; a file cut short lacks it, and OpenCV would fill the rest with grey
AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def read_pixels(path: Path) -> Pixels:
    """RGB [H, W, 3], writable; equal to `decode(path)`, with its errors."""
    try:
        content = read(path)
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as header:  # reads no pixel
            plain = header.mode in ("RGB", "L") and content.endswith(END)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        plain = False
    found = cv2.imdecode(np.frombuffer(content, np.uint8), AS_STORED) if plain else None
    return np.array(decode(path)) if found is None else np.asarray(found, np.uint8)
