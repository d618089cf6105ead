"""Decode image files, and classify their problems.

EXIF rotation is not applied, as in timm and torchvision.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_root import read_file
from densecl.errors import DataError

# Files of one type often carry the extension of another (ImageNet has a PNG named .JPEG). Pillow's
# other readers are not allowed: some start programs (EPS), and photographs need none of them.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")

EMPTY = "empty file"
NO_IMAGE = "not an image"
BAD_HEADER = "damaged: its header cannot be read"
TRUNCATED = "truncated"
DAMAGED = "damaged: cannot be decoded"
BOMB = f"decompression bomb: more than {Image.MAX_IMAGE_PIXELS} pixels"
BLANK = "blank: every pixel is the same"
SIXTEEN_BIT = "16-bit: scaled to 8 bits"
CMYK = "CMYK: converted to RGB as Pillow does"
UNOPENED = "cannot be opened"
HARMLESS_PROBLEMS = ("", SIXTEEN_BIT, CMYK)  # others exclude from training and evaluation

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
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode_image(path: Path) -> Image.Image:
    """RGB image, bit-identical to `Image.open(path).convert("RGB")` as in timm.

    The one exception: 16-bit greyscale, which Pillow clips to white, is scaled to 8 bits.
    DataError names the path and the reason.
    """
    content = b""
    try:
        content = read_file(path)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return convert_to_rgb(image)
    except DECODE_ERRORS as error:
        raise DataError(
            f"{to_printable(path)}: {describe_decode_error(error, content)}; validate the dataset "
            f"again, or remove the file"
        ) from None


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """As Pillow converts it, but 16-bit greyscale scaled to 8 bits."""
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def describe_decode_error(error: BaseException, content: bytes) -> str:
    """A description that is the same for all versions of Pillow."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return BOMB
    if isinstance(error, OSError) and error.errno is not None:
        return f"{UNOPENED}: {(error.strerror or 'unknown error').lower()}"
    if isinstance(error, UnidentifiedImageError):
        return EMPTY if not content else BAD_HEADER if content.startswith(MAGIC) else NO_IMAGE
    return TRUNCATED if "truncated" in str(error).lower() else DAMAGED
