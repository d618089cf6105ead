"""Decoding of image files, and what is wrong with the ones that should not be used.

No EXIF rotation is applied, as in timm and torchvision: the pixels count as they are stored.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from densecl.datasets.manifests.dhash import dhash
from densecl.datasets.storage.filenames import shown
from densecl.datasets.storage.image_root import read
from densecl.errors import DataError

# Files of one type often carry the extension of another (ImageNet has a PNG named .JPEG). Pillow's other readers
# stay shut: some start programs (EPS), and none belongs in a folder of photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF")

EMPTY = "empty file"
NO_IMAGE = "not an image"
HEADER = "damaged: its header cannot be read"
TRUNCATED = "truncated"
DAMAGED = "damaged: cannot be decoded"
BOMB = f"decompression bomb: more than {Image.MAX_IMAGE_PIXELS} pixels"
BLANK = "blank: every pixel is the same"
SIXTEEN = "16-bit: scaled to 8 bits"
CMYK = "CMYK: converted to RGB as Pillow does"
UNOPENED = "cannot be opened"
HARMLESS = ("", SIXTEEN, CMYK)

# What Pillow's readers raise on damaged files, beside their own OSError.
_FAULTS = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError,
           MemoryError, RuntimeError, Image.DecompressionBombError, Image.DecompressionBombWarning)  # fmt: skip


class Probe(NamedTuple):
    """Size in pixels and Pillow's mode as stored (0, 0, "" if unreadable); `problem` is "" or a stable reason."""

    width: int
    height: int
    mode: str
    problem: str


class Measured(NamedTuple):
    """A probe with the file's size in bytes, the SHA-256 of its content and its difference hash, both hex.

    sha256 is "" if it cannot be opened, dhash if it cannot be decoded or is blank. Brightness and contrast are the mean
    and the standard deviation of its luma in [0, 1], whole and undistorted; None if it cannot be decoded.
    """

    probe: Probe
    bytes: int
    sha256: str
    dhash: str
    brightness: float | None
    contrast: float | None


class Look(NamedTuple):
    """What decoding a file tells."""

    probe: Probe
    dhash: str = ""
    brightness: float | None = None
    contrast: float | None = None


def decode(path: Path) -> Image.Image:
    """RGB image, equal to the bit to `Image.open(path).convert("RGB")`, which is what timm does.

    The one exception: 16-bit greyscale, which Pillow clips to white, is scaled to 8 bits.
    Raises DataError that names the path and the reason.
    """
    content = b""
    try:
        content = read(path)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _to_rgb(image)
    except _FAULTS as error:
        raise DataError(
            f"{shown(path)}: {_reason(error, content)}; validate the set again, or remove the file"
        ) from None


def fatal(problem: str) -> bool:
    """True where an image with this problem cannot be trained on or scored."""
    return problem not in HARMLESS


def probe(path: Path) -> Probe:
    """Size, mode and problem of one file, by decoding it whole; never raises for a bad file."""
    return measure(path).probe


def measure(path: Path) -> Measured:
    """Probe, size in bytes and SHA-256 of one file, read once."""
    try:
        content = read(path)
    except OSError as error:
        return Measured(Probe(0, 0, "", _reason(error, b"")), 0, "", "", None, None)
    look = _examine(content)
    return Measured(look.probe, len(content), hashlib.sha256(content).hexdigest(), *look[1:])


def _examine(content: bytes) -> Look:
    with warnings.catch_warnings():
        # Readers warn of odd metadata, which changes no pixel; of too many pixels they warn before they refuse.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                mode = image.mode
                rgb = _to_rgb(image)
        except _FAULTS as error:
            return Look(Probe(0, 0, "", _reason(error, content)))
    grey = rgb.convert("L")
    light = _light(grey)
    if all(channel.getextrema() == (channel.getpixel((0, 0)),) * 2 for channel in rgb.split()):
        return Look(Probe(*rgb.size, mode, BLANK), "", *light)
    odd = SIXTEEN if mode.startswith("I") else CMYK if mode == "CMYK" else ""
    return Look(Probe(*rgb.size, mode, odd), dhash(grey), *light)


def _light(grey: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of luma in [0, 1]; summed in integers, so the same on every machine."""
    counts = grey.histogram()
    n = sum(counts)
    first = sum(level * count for level, count in enumerate(counts))
    second = sum(level * level * count for level, count in enumerate(counts))
    return first / n / 255, math.sqrt(n * second - first * first) / n / 255


def _to_rgb(image: Image.Image) -> Image.Image:
    if not image.mode.startswith("I"):
        return image.convert("RGB")
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")


def _reason(error: BaseException, content: bytes) -> str:
    """A reason that stays the same over Pillow's versions."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return BOMB
    if isinstance(error, OSError) and error.errno is not None:
        return f"{UNOPENED}: {(error.strerror or 'unknown error').lower()}"
    if isinstance(error, UnidentifiedImageError):
        return EMPTY if not content else HEADER if content.startswith(MAGIC) else NO_IMAGE
    return TRUNCATED if "truncated" in str(error).lower() else DAMAGED
