"""Inspect one image file: size, content hash, difference hash, brightness and problems."""

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
    FEWER_BITS,
    SIXTEEN_BIT,
    Orientation,
    convert_to_rgb,
    count_grey_bits,
    describe_decode_error,
    get_orientation,
)
from densecl.datasets.storage.image_formats import DECODE_ERRORS, FORMATS
from densecl.datasets.storage.image_root import read_file


class FileInfo(NamedTuple):
    """An ImageInfo with the file's size in bytes, the SHA-256 of its content and its difference
    hash, both in hex.

    Brightness and contrast are the mean and the standard deviation of the whole image's luma in
    [0, 1].
    """

    width: int = 0
    height: int = 0
    bytes: int = 0
    sha256: str = ""
    problem: str = ""  # a stable reason
    dhash: str = ""
    brightness: float | None = None
    contrast: float | None = None
    # No columns of the manifest:
    is_turned: bool = False  # its EXIF orientation is not upright
    is_final: bool = True  # False where the reason may pass, such as a lack of memory


def inspect_file(path: Path, exif: Orientation = "ignore") -> FileInfo:
    """Properties of one file, read once; `exif`: as `decode_image`."""
    try:
        content = read_file(path)
    except OSError as error:
        return FileInfo(problem=describe_decode_error(error, b""), is_final=False)
    info = FileInfo(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    with warnings.catch_warnings():
        # Pillow warns of odd metadata, which changes no pixel; of too many pixels it warns first
        # and fails at twice the limit.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                mode, rgb = image.mode, convert_to_rgb(image, exif)
                bits, is_turned = count_grey_bits(image), get_orientation(image) != 1
        except DECODE_ERRORS as error:
            problem = describe_decode_error(error, content)
            return info._replace(problem=problem, is_final=not _may_pass(error))
    grey = rgb.convert("L")
    brightness, contrast = _compute_luma_stats(grey)
    info = info._replace(
        width=rgb.width,
        height=rgb.height,
        brightness=brightness,
        contrast=contrast,
        is_turned=is_turned,
    )
    if rgb.getcolors(1):  # None if there are more
        return info._replace(problem=BLANK)
    problem = FEWER_BITS.get(bits, SIXTEEN_BIT) if bits else CMYK if mode == "CMYK" else ""
    return info._replace(problem=problem, dhash=compute_dhash(grey))


def _may_pass(error: BaseException) -> bool:
    """Whether the same bytes may be decoded next time."""
    is_of_system = isinstance(error, OSError) and error.errno is not None
    return is_of_system or isinstance(error, MemoryError | RuntimeError)


def _compute_luma_stats(grey: Image.Image) -> tuple[float, float]:
    """Mean and standard deviation of luma in [0, 1]; integer sums give the same result on every
    machine.
    """
    counts = grey.histogram()
    n = sum(counts)
    first = sum(level * count for level, count in enumerate(counts))
    second = sum(level * level * count for level, count in enumerate(counts))
    return first / n / 255, math.sqrt(n * second - first * first) / n / 255
