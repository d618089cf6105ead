"""Inspect the masks of an entry of `transfer`: whether their values are what they should be."""

import hashlib
import io
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from densecl.config.probe_params import TransferParams
from densecl.datasets.storage.decode import describe_decode_error
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_formats import DECODE_ERRORS
from densecl.datasets.storage.image_root import read_file
from densecl.datasets.storage.transfer import OBJECT_LEVEL
from densecl.errors import DataError

LEVELS = 256
BIT_DEPTH_AT = 24  # of a PNG's bytes: in IHDR, always the first chunk
OF_OBJECTS = {0, 255}  # as indices: the background, and what is ignored


class Indices(NamedTuple):
    """The indices that a layout's masks may have."""

    allowed: Collection[int]
    meaning: str
    of_palettes: Collection[int]  # of masks that have one, whose values are no levels of grey


INDICES = {
    "folders": Indices(range(LEVELS), "any", range(LEVELS)),
    "voc": Indices(
        (*range(21), 255),
        "0 (background), 1 to 20 (classes) or 255 (ignored) in a mask without a palette (classes "
        "of your own: layout folders with mask_values: classes)",
        range(LEVELS),  # people's own classes too
    ),
    "ade20k": Indices(range(151), "0 (ignored) or 1 to 150 (classes)", range(151)),
}


class MaskInfo(NamedTuple):
    width: int = 0
    height: int = 0
    sha256: str = ""
    problem: str = ""
    indices: frozenset[int] = frozenset()  # of a mask of classes: those that it has


def get_indices(params: TransferParams) -> Indices | None:
    """Of an entry's masks; None if they show objects."""
    return None if params.mask_values == "object" else INDICES[params.layout]


def inspect_mask(path: Path, indices: Indices | None) -> MaskInfo:
    """Size, content hash and problem of a mask; `indices`: as `get_indices`."""
    content = b""
    try:
        content = read_file(path)
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            mode, values = image.mode, np.asarray(image)
    except DECODE_ERRORS as error:
        return MaskInfo(problem=describe_decode_error(error, content))
    height, width = values.shape[:2]
    info = MaskInfo(width, height, hashlib.sha256(content).hexdigest())
    if indices is None:
        return info._replace(problem=_check_object(mode, values))
    if problem := _check_format(mode, content[BIT_DEPTH_AT]):
        return info._replace(problem=problem)
    counts = np.bincount(values.reshape(-1), minlength=LEVELS)
    found = frozenset(np.flatnonzero(counts).tolist())
    return info._replace(problem=_check_indices(found, mode, indices), indices=found)


def _check_format(mode: str, bits: int) -> str:
    """Of a mask of classes; Pillow scales grey of 2 and 4 bits to 0 to 255."""
    if mode == "L" and bits != 8:
        return (
            f"found a grey PNG of {bits} bits, expected indices of classes in 8 bits (P or L); "
            "save it with 8 bits"
        )
    if mode not in ("P", "L"):
        colours = "; colours are no indices" if mode in ("RGB", "RGBA") else ""
        return (
            f"found a PNG of mode {mode}, expected indices of classes in 8 bits (P or L){colours}"
        )
    return ""


def _check_indices(found: frozenset[int], mode: str, indices: Indices) -> str:
    if wrong := found.difference(indices.of_palettes if mode == "P" else indices.allowed):
        return (
            f"found the value {min(wrong)}, expected {indices.meaning}; the grey of a colour is "
            "no index"
        )
    return ""


def _check_object(mode: str, values: NDArray[np.uint8]) -> str:
    if mode not in ("L", "1"):
        return f"found a PNG of mode {mode}, expected an object in grey (L or 1)"
    if mode == "L" and 0 < values.max() < OBJECT_LEVEL:
        return (
            f"found values below {OBJECT_LEVEL} only, so no object; if they are indices, set "
            "mask_values: classes"
        )
    return ""


def check_no_objects(params: TransferParams, masks: Iterable[MaskInfo]) -> None:
    """DataError if all masks of classes in layout folders are what masks of objects are: 0 and 255,
    of which nothing would be left.
    """
    usable = [mask.indices for mask in masks if not mask.problem]
    if params.mask_values == "classes" and frozenset().union(*usable) == OF_OBJECTS:
        raise DataError(
            f"{to_printable(params.masks)}: found only 0 and 255 in {len(usable):,} masks, "
            "expected indices of classes, where 255 is ignored; if it is the object, set "
            "mask_values: object"
        )
