"""Decode images for training with OpenCV's JPEG build, bit-identical to Pillow and faster."""

import io

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densecl.datasets.storage.decode import Orientation, decode_image, get_orientation
from densecl.datasets.storage.image_root import ImagePlace, read_file

Pixels = NDArray[np.uint8]

JPEG_END = b"\xff\xd9"  # missing in a truncated file, of which OpenCV would fill the rest with grey
READ_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
REDUCTION_FLAGS = {  # "grayscale" means no channel order: OpenCV refuses BGR beside RGB
    1: READ_FLAGS,
    2: READ_FLAGS | cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: READ_FLAGS | cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: READ_FLAGS | cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class ImageFile:
    """The content of an image file, not yet decoded.

    `jpeg_size` is (width, height) of a JPEG that OpenCV decodes as Pillow does: complete, in RGB or
    grey, and not to be turned. It is None for any other image. `exif`: as `decode_image`.
    """

    def __init__(self, path: ImagePlace, exif: Orientation = "ignore") -> None:
        self.path, self.exif, self.content = path, exif, b""
        self.jpeg_size: tuple[int, int] | None = None
        try:
            self.content = read_file(path)
            with Image.open(io.BytesIO(self.content), formats=("JPEG",)) as header:  # no pixel
                is_upright = exif == "ignore" or get_orientation(header) == 1
                is_plain = header.mode in ("RGB", "L") and self.content.endswith(JPEG_END)
                if is_upright and is_plain:
                    self.jpeg_size = header.size
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            pass  # no JPEG, or a damaged one: decode() says what is wrong

    def decode(self, reduction: int = 1) -> Pixels:
        """Writable RGB [H, W, 3], equal to `decode_image`'s; raises the same errors.

        With a reduction of 2, 4 or 8: [ceil(H / reduction), ceil(W / reduction), 3], where a pixel
        covers reduction x reduction pixels of the image (libjpeg's scaled inverse DCT).
        """
        decoded = None
        if self.jpeg_size:
            decoded = cv2.imdecode(
                np.frombuffer(self.content, np.uint8), REDUCTION_FLAGS[reduction]
            )
        if decoded is None:
            return np.array(decode_image(self.path, self.exif).reduce(reduction))
        return np.asarray(decoded, np.uint8)


def read_pixels(path: ImagePlace, exif: Orientation = "ignore") -> Pixels:
    """Decode an image to writable RGB [H, W, 3]; equals `decode_image(path, exif)` and raises the
    same errors.
    """
    return ImageFile(path, exif).decode()
