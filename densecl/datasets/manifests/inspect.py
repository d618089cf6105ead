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

from densecl.datasets.manifests.dhash import dhash
from densecl.datasets.storage.decode import BLANK, CMYK, FAULTS, FORMATS, SIXTEEN, reason_of, to_rgb
from densecl.datasets.storage.image_root import read


class Probe(NamedTuple):
    """Size in pixels and Pillow's mode as stored (0, 0, "" if unreadable); `problem` is "" or a
    stable reason.
    """

    width: int
    height: int
    mode: str
    problem: str


class Measured(NamedTuple):
    """A probe with the file's size in bytes, the SHA-256 of its content and its difference hash,
    both hex.

    sha256 is "" if it cannot be opened, dhash if it cannot be decoded or is blank. Brightness and
    contrast are the mean and the standard deviation of its luma in [0, 1], whole and undistorted;
    None if it cannot be decoded.
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


def probe(path: Path) -> Probe:
    """Size, mode and problem of one file, by decoding it whole; never raises for a bad file."""
    return measure(path).probe


def measure(path: Path) -> Measured:
    """Probe, size in bytes and SHA-256 of one file, read once."""
    try:
        content = read(path)
    except OSError as error:
        return Measured(Probe(0, 0, "", reason_of(error, b"")), 0, "", "", None, None)
    look = _examine(content)
    return Measured(look.probe, len(content), hashlib.sha256(content).hexdigest(), *look[1:])


def _examine(content: bytes) -> Look:
    with warnings.catch_warnings():
        # Readers warn of odd metadata, which changes no pixel; of too many pixels they warn before
        # they refuse.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                mode = image.mode
                rgb = to_rgb(image)
        except FAULTS as error:
            return Look(Probe(0, 0, "", reason_of(error, content)))
    grey = rgb.convert("L")
    light = _light(grey)
    if all(channel.getextrema() == (channel.getpixel((0, 0)),) * 2 for channel in rgb.split()):
        return Look(Probe(*rgb.size, mode, BLANK), "", *light)
    odd = SIXTEEN if mode.startswith("I") else CMYK if mode == "CMYK" else ""
    return Look(Probe(*rgb.size, mode, odd), dhash(grey), *light)


def _light(grey: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of luma in [0, 1]; summed in integers, so the same on every
    machine.
    """
    counts = grey.histogram()
    n = sum(counts)
    first = sum(level * count for level, count in enumerate(counts))
    second = sum(level * level * count for level, count in enumerate(counts))
    return first / n / 255, math.sqrt(n * second - first * first) / n / 255
