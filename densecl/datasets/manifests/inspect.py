"""What a manifest says of one image file: size, content hash, difference hash, brightness, and what
is wrong with it.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from densecl.datasets.manifests.dhash import compute_dhash
from densecl.datasets.storage.decode import (
    BLANK,
    CMYK,
    DECODE_ERRORS,
    FORMATS,
    SIXTEEN_BIT,
    convert_to_rgb,
    describe_decode_error,
)
from densecl.datasets.storage.image_root import read_file


class ImageInfo(NamedTuple):
    """Size in pixels and Pillow's mode as stored (0, 0, "" if unreadable); `problem` is "" or a
    stable reason.
    """

    width: int
    height: int
    mode: str
    problem: str


class FileInfo(NamedTuple):
    """A probe with the file's size in bytes, the SHA-256 of its content and its difference hash,
    both hex.

    sha256 is "" if it cannot be opened, dhash if it cannot be decoded or is blank. Brightness and
    contrast are the mean and the standard deviation of its luma in [0, 1], whole and undistorted;
    None if it cannot be decoded.
    """

    image_info: ImageInfo
    bytes: int
    sha256: str
    dhash: str
    brightness: float | None
    contrast: float | None


class DecodedStats(NamedTuple):
    """What decoding a file tells."""

    image_info: ImageInfo
    dhash: str = ""
    brightness: float | None = None
    contrast: float | None = None


def inspect_image(path: Path) -> ImageInfo:
    """Size, mode and problem of one file, by decoding it whole; never raises for a bad file."""
    return inspect_file(path).image_info


def inspect_file(path: Path) -> FileInfo:
    """Probe, size in bytes and SHA-256 of one file, read once."""
    try:
        content = read_file(path)
    except OSError as error:
        return FileInfo(
            ImageInfo(0, 0, "", describe_decode_error(error, b"")), 0, "", "", None, None
        )
    stats = _inspect_content(content)
    return FileInfo(stats.image_info, len(content), hashlib.sha256(content).hexdigest(), *stats[1:])


def _inspect_content(content: bytes) -> DecodedStats:
    with warnings.catch_warnings():
        # Readers warn of odd metadata, which changes no pixel; of too many pixels they warn before
        # they refuse.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                mode = image.mode
                rgb = convert_to_rgb(image)
        except DECODE_ERRORS as error:
            return DecodedStats(ImageInfo(0, 0, "", describe_decode_error(error, content)))
    grey = rgb.convert("L")
    luma_stats = _compute_luma_stats(grey)
    if all(channel.getextrema() == (channel.getpixel((0, 0)),) * 2 for channel in rgb.split()):
        return DecodedStats(ImageInfo(*rgb.size, mode, BLANK), "", *luma_stats)
    problem = SIXTEEN_BIT if mode.startswith("I") else CMYK if mode == "CMYK" else ""
    return DecodedStats(ImageInfo(*rgb.size, mode, problem), compute_dhash(grey), *luma_stats)


def _compute_luma_stats(grey: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of luma in [0, 1]; summed in integers, so the same on every
    machine.
    """
    counts = grey.histogram()
    n = sum(counts)
    first = sum(level * count for level, count in enumerate(counts))
    second = sum(level * level * count for level, count in enumerate(counts))
    return first / n / 255, math.sqrt(n * second - first * first) / n / 255
