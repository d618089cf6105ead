"""Pictures of segmentation: images, the true classes, and what each mode says of every patch."""

import colorsys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densecl import paths
from densecl.analysis.results import READ_ERRORS, Comparison
from densecl.pages.formatting import format_percent
from densecl.pages.templates import encode_thumbnail
from densecl.report.formatting import list_modes

PROBE = "segmentation"
MAX_PICTURES = 6
PICTURE_PX = 112
IGNORED = 255  # class of pixels that are not scored
GOLDEN_ANGLE = 0.618034  # of the circle of hues: neighbouring classes lie far apart

Maps = Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Picture:
    data_uri: str
    alt: str
    caption: str


@dataclass(frozen=True)
class PictureRow:
    """One image: itself, the truth, and the prediction of each mode."""

    pictures: tuple[Picture, ...]


def build_segmentation_pictures(comparison: Comparison, root: Path) -> list[PictureRow]:
    """Of the first seed of each mode that left some of the same images; [] without any."""
    seed = comparison.plan.seeds[0]
    maps = {
        mode: found
        for mode in list_modes(comparison)
        if (found := read_pictures(root / paths.probe_pictures_file(PROBE, mode, seed))) is not None
    }
    if not maps:
        return []
    first = next(iter(maps.values()))
    same = {mode: m for mode, m in maps.items() if np.array_equal(m["truth"], first["truth"])}
    count = min(MAX_PICTURES, len(first["truth"]))
    return [_build_row(first, same, number) for number in range(count)]


def read_pictures(path: Path) -> Maps | None:
    """`image` [n, 3, H, W], `truth` and `prediction` [n, H, W]; None if they are not there."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not path.is_file():
        return None
    try:
        maps = load_file(path)
    except (*READ_ERRORS, SafetensorError):
        return None
    return maps if {"image", "truth", "prediction"} <= maps.keys() else None


def _build_row(first: Maps, modes: Mapping[str, Maps], number: int) -> PictureRow:
    truth = first["truth"][number]
    scored = truth != IGNORED
    image = first["image"][number].transpose(1, 2, 0)
    pictures = [
        Picture(_encode(image), f"image {number + 1}", "image"),
        Picture(_encode(colour_classes(truth)), f"image {number + 1}: true classes", "truth"),
    ]
    for mode, maps in modes.items():
        prediction = maps["prediction"][number]
        right = float((prediction == truth)[scored].mean()) if scored.any() else float("nan")
        share = f"{format_percent(right)} %"
        shown = colour_classes(np.where(scored, prediction, IGNORED))
        alt = f"image {number + 1}: classes by {mode}, {share} of the pixels right"
        pictures.append(Picture(_encode(shown), alt, f"{mode} {share}"))
    return PictureRow(tuple(pictures))


def colour_classes(classes: NDArray[np.integer]) -> NDArray[np.uint8]:
    """[H, W] -> [H, W, 3]: class 0, the background, is dark grey, pixels not scored are white."""
    palette = np.full((256, 3), 255, dtype="uint8")
    palette[0] = 60
    for number in range(1, IGNORED):
        hue, lightness = (number * GOLDEN_ANGLE) % 1, (0.62, 0.45, 0.78)[number % 3]
        palette[number] = np.round(255 * np.array(colorsys.hls_to_rgb(hue, lightness, 0.75)))
    return np.asarray(palette[classes], dtype=np.uint8)


def _encode(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return encode_thumbnail(picture, PICTURE_PX, "WEBP", lossless=True, method=4)
