"""The image formats that are read, and the recognition of a file by its content."""

import struct
import warnings
import zlib
from contextlib import suppress
from importlib.util import find_spec
from typing import BinaryIO

from PIL import Image

from densecl.datasets.storage.filenames import get_suffix


def register_heif() -> bool:
    """Let Pillow read HEIC; False without the extra `heif`."""
    if not find_spec("pillow_heif"):
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)
    return True


# Files of one type often carry the extension of another (ImageNet has a PNG named .JPEG), so each
# is read by its content. Pillow's other readers are not allowed: some start programs (EPS), and
# photographs need none of them. JPEG includes MPO. The first frame is the image.
FORMATS = (
    *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO"),
    *(("HEIF",) if register_heif() else ()),
)
# Of a file that has another extension. Raw files of cameras are TIFF, with a thumbnail first.
FORMATS_BY_CONTENT = tuple(name for name in FORMATS if name != "TIFF")

# What Pillow's readers raise on damaged files.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    AttributeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def is_image_content(file: BinaryIO, name: str) -> bool:
    """True if the header of the file is that of an image, for a name that does not tell.

    Of TIFF only where the name has no extension: that of a camera's raw file tells another format.
    """
    formats = FORMATS_BY_CONTENT if get_suffix(name) else FORMATS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with suppress(*DECODE_ERRORS), Image.open(file, formats=formats):
            return True
    return False
