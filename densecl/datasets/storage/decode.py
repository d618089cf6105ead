"""Decode image files, and classify their problems.

EXIF rotation is not applied, as in timm and torchvision, unless `data.exif` is apply.
"""

import io
import re
from contextlib import suppress
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_formats import DECODE_ERRORS, FORMATS
from densecl.datasets.storage.image_root import ImagePlace, read_file
from densecl.errors import DataError

MAGIC = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
)

EMPTY = "empty file"
NO_IMAGE = "not an image"
BAD_HEADER = "damaged: its header cannot be read"
TRUNCATED = "truncated"
DAMAGED = "damaged: cannot be decoded"
BOMB = f"decompression bomb: more than {Image.MAX_IMAGE_PIXELS} pixels"
MAX_RATIO = 250  # of the sides: a 1,000,000 x 1 px image of 1 kB is resized to gigabytes
STRIP = f"strip: one side is more than {MAX_RATIO} times as long as the other"
BLANK = "blank: every pixel is the same"
SIXTEEN_BIT = "16-bit: scaled to 8 bits"
GREY_BITS = (8, 10, 12, 14)  # of cameras, in files of 16 bits
FEWER_BITS = {
    bits: f"16-bit with levels up to {2**bits - 1}: taken for {bits} bits, scaled to 8"
    for bits in GREY_BITS
}
NO_RANGE = "grey levels that are negative, fractions or above 16 bits: their range is unknown"
DARK_COLOUR = (
    "16-bit colour with levels below 16384 only: taken for fewer bits, of which it has lost the "
    "lower ones; save it with 8 bits per channel"
)
DEEP_COLOUR = re.compile(r"[A-Za-z]{2,};16[BLN]")  # Pillow's raw modes, such as RGB;16B
# What 16383 is in 8 bits: rounded as Pillow reads PPM, else its upper bits.
HIGHEST_DARK_PPM, HIGHEST_DARK = 64, 63
WHITE_IS_ZERO = 262, 0  # TIFF's tag of photometric interpretation, and its value
CMYK = "CMYK: converted to RGB as Pillow does"
UNOPENED = "cannot be opened"
HARMLESS_PROBLEMS = (
    "",
    SIXTEEN_BIT,
    *FEWER_BITS.values(),
    CMYK,
)  # others exclude from training and evaluation

Orientation = Literal["ignore", "apply"]
TURNS = {  # EXIF orientation -> what makes the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnknownRangeError(ValueError):
    """Levels that no rule maps to 8 bits; its text is one of the problems above."""


class StripError(ValueError):
    """An image whose resized copy would take more memory than a photograph's."""


def decode_image(path: ImagePlace, exif: Orientation = "ignore") -> Image.Image:
    """RGB image, bit-identical to `Image.open(path).convert("RGB")` as in timm.

    The one exception: 16-bit greyscale, which Pillow clips to white, is scaled to 8 bits. `exif`:
    as `convert_to_rgb`. DataError names the path and the reason.
    """
    content = b""
    try:
        content = read_file(path)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return convert_to_rgb(image, exif)
    except DECODE_ERRORS as error:
        raise DataError(
            f"{to_printable(path)}: {describe_decode_error(error, content)}; validate the dataset "
            f"again, or remove the file"
        ) from None


def convert_to_rgb(image: Image.Image, exif: Orientation = "ignore") -> Image.Image:
    """As Pillow converts it, but 16-bit greyscale scaled to 8 bits by `count_grey_bits`.

    `exif`: apply turns it upright as its EXIF orientation says. UnknownRangeError, also for colour
    of 12 bits in 16, whose upper 8 are nearly black.
    """
    if max(image.size) > MAX_RATIO * min(image.size):
        raise StripError(STRIP)
    highest_dark = _find_highest_dark(image)  # before the pixels are read, which forgets it
    if image.mode.startswith(("I", "F")):
        levels, bits = _read_levels(image)
        top = 2**bits - 1
        rgb = Image.fromarray(((levels * 255 + top // 2) // top).astype(np.uint8)).convert("RGB")
    else:
        rgb = image.convert("RGB")
        if 0 < int(np.asarray(rgb).max()) <= highest_dark:
            raise UnknownRangeError(DARK_COLOUR)
    if exif == "apply" and (turn := TURNS.get(get_orientation(image))) is not None:
        return rgb.transpose(turn)
    return rgb


def find_turn(path: ImagePlace) -> Image.Transpose | None:
    """How `decode_image` with exif: apply turns a readable image, which its mask must follow."""
    with Image.open(io.BytesIO(read_file(path)), formats=FORMATS) as image:
        if get_orientation(image) == 1:
            return None
        image.load()  # which turns a TIFF, and takes its orientation away
        return TURNS.get(get_orientation(image))


def _find_highest_dark(image: Image.Image) -> int:
    """Of a file with 16 bits per channel of colour, of which Pillow reads the upper 8: the highest
    level up to which it may have fewer bits. Else -1.
    """
    for tile in getattr(image, "tile", ()):
        arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        if DEEP_COLOUR.match(str(arguments[0])):
            return HIGHEST_DARK
        if arguments[1:] == (65535,):
            return HIGHEST_DARK_PPM
    return -1


def get_orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 if there is none or it is damaged."""
    with suppress(*DECODE_ERRORS):
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        return orientation if orientation in TURNS else 1
    return 1


def count_grey_bits(image: Image.Image) -> int:
    """Bits that the levels of 16-bit greyscale use: the fewest of GREY_BITS that hold its highest
    level, else 16; 0 for other images.
    """
    return _read_levels(image)[1] if image.mode.startswith("I") else 0


def _read_levels(image: Image.Image) -> tuple[NDArray[np.int64], int]:
    """Grey levels [H, W] and the bits that they use; UnknownRangeError."""
    pixels = np.asarray(image)
    if image.mode == "F" or pixels.min() < 0 or pixels.max() > 65535:
        raise UnknownRangeError(NO_RANGE)
    highest = int(pixels.max())
    bits = next((bits for bits in GREY_BITS if highest < 2**bits), 16)
    levels = pixels.astype(np.int64)
    tag, inverted = WHITE_IS_ZERO
    if getattr(image, "tag_v2", {}).get(tag) == inverted:  # as Pillow does for 8 bits
        levels = 2**bits - 1 - levels
    return levels, bits


def describe_decode_error(error: BaseException, content: bytes) -> str:
    """A description that is the same for all versions of Pillow."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return BOMB
    if isinstance(error, UnknownRangeError | StripError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return f"{UNOPENED}: {(error.strerror or 'unknown error').lower()}"
    if isinstance(error, UnidentifiedImageError):
        return EMPTY if not content else BAD_HEADER if content.startswith(MAGIC) else NO_IMAGE
    return TRUNCATED if "truncated" in str(error).lower() else DAMAGED
