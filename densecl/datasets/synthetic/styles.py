"""The built-in image sets: drawn by code, laid out like the unpacked archives that they
imitate.

An object's shape always decides its class; its texture and colour go with the class four times in
five; pose, size, light and background are free. That makes a small ViT learn in minutes, makes it
rely on texture and colour, and makes each shifted set a real shift.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from densecl.config.params import RenderParams
from densecl.datasets.synthetic.shapes import SHAPES, Pose, render_mask
from densecl.datasets.synthetic.textures import (
    TEXTURES,
    convert_to_rgb,
    render_background,
    render_surface,
    sample_noise,
)
from densecl.runtime.hardware import count_workers
from densecl.runtime.signals import exit_worker_with_parent
from densecl.seeding import derive_seed

JPEG_QUALITY = 92  # of JPEG


class SyntheticClass(NamedTuple):
    """A kind of object; its wnid is no real synset, so that no figure is mistaken for
    ImageNet's.
    """

    wnid: str
    name: str
    texture: str
    hue: float


_TEXTURE_AND_HUE = {
    "butterfly": ("wedges", 0.08),
    "crescent": ("rings", 0.15),
    "fish": ("scales", 0.55),
    "heart": ("dots", 0.97),
    "house": ("bricks", 0.03),
    "key": ("brushed", 0.12),
    "mug": ("bands", 0.62),
    "mushroom": ("speckles", 0.0),
    "plane": ("stripes", 0.5),
    "star": ("checks", 0.78),
    "tree": ("zigzag", 0.33),
    "umbrella": ("clouds", 0.87),
}
SYNTHETIC_CLASSES = tuple(
    SyntheticClass(f"n9{number:07d}", name, *look)
    for number, (name, look) in enumerate(_TEXTURE_AND_HUE.items())
)
SUBSETS = {  # class indices of the sets that, like the real ones, hold a part of the classes
    "adversarial": (0, 2, 3, 5, 6, 9, 10),
    "rendition": (1, 2, 4, 6, 8, 9, 11),
    "cue-conflict": (0, 1, 3, 4, 6, 7, 8, 10, 11),
}
RENDITIONS = ("cartoon", "painting", "outline", "mosaic", "neon")


@dataclass(frozen=True)
class PhotoVariation:
    """What varies between sets of photographs."""

    agreement: float = 0.8  # how often texture, and colour, are the class's own
    size: tuple[float, float] = (0.26, 0.42)  # half-size, share of the image
    turn: float = 25  # degrees either way
    shift: float = 0.09  # of the centre, share of the image
    light: tuple[float, float] = (0.75, 1.1)
    grain: float = 0.015


PHOTO = PhotoVariation()
MAX_BARS = PhotoVariation(size=(0.32, 0.45), turn=12, shift=0.05)  # artists centre what they draw
RECOLLECTED = PhotoVariation(
    agreement=0.6, size=(0.2, 0.4), turn=45, shift=0.14, light=(0.55, 1.2), grain=0.04
)


class Drawing(NamedTuple):
    image: Image.Image
    mask: Image.Image  # mode L, same size
    path: str  # below the set's folder


def render_dataset(settings: RenderParams, images: Path, masks: Path) -> int:
    """Write the set and its object masks (same paths, .png); the number of images. Same settings,
    same bytes.
    """
    labels = SUBSETS.get(settings.style, tuple(range(len(SYNTHETIC_CLASSES))))
    with ProcessPoolExecutor(
        max(1, count_workers()), get_context("spawn"), initializer=exit_worker_with_parent
    ) as pool:
        counts = pool.map(
            _render_class,
            *zip(*((settings, label, images, masks) for label in labels), strict=True),
        )
        total = sum(counts)
    if settings.style in ("adversarial", "rendition"):
        (images / "README.txt").write_text(
            f"Built-in {settings.style} images, drawn by code. Folder = class.\n", encoding="utf-8"
        )
    return total


def _render_class(settings: RenderParams, label: int, images: Path, masks: Path) -> int:
    folder = str(label) if settings.style == "recollected" else SYNTHETIC_CLASSES[label].wnid
    drawings = list(STYLES[settings.style](settings, label))
    for drawing in drawings:
        image_path, mask_path = (
            images / folder / drawing.path,
            (masks / folder / drawing.path).with_suffix(".png"),
        )
        for path in (image_path, mask_path):
            path.parent.mkdir(parents=True, exist_ok=True)
        drawing.image.save(image_path, quality=JPEG_QUALITY)  # PNG passes it over
        drawing.mask.save(mask_path)
    return len(drawings)


def _create_rng(settings: RenderParams, *words: str | int) -> np.random.Generator:
    return np.random.default_rng(
        derive_seed(settings.seed, "render", settings.style, settings.folder, settings.size, *words)
    )


def render_photograph(
    label: int,
    variation: PhotoVariation,
    size: int,
    rng: np.random.Generator,
    surface_classes: tuple[int, int] | None = None,
) -> tuple[Image.Image, Image.Image]:
    """An object on a background, and its mask; `surface_classes` gives the classes of its texture
    and its colour.
    """
    pose, mask, canvas = _draw_object(label, variation, size, rng)
    drawn = _sample_cue_class(label, variation, rng), _sample_cue_class(label, variation, rng)
    texture, colour = (SYNTHETIC_CLASSES[index] for index in surface_classes or drawn)
    grid = pose.compute_grid(canvas)
    shade = (
        1 - 0.3 * np.clip(0.7 * grid[0] + 0.7 * grid[1], -0.6, 1)[..., None]
    )  # light from the upper left
    coloured = render_surface(texture.texture, colour.hue, grid, rng) * shade
    backdrop = render_background(canvas, rng)
    cast = ImageChops.offset(
        mask.filter(ImageFilter.GaussianBlur(canvas * 0.025)), canvas // 40, canvas // 28
    )
    backdrop = backdrop * (1 - 0.45 * _scale_to_unit(cast))
    rim = _scale_to_unit(mask.filter(ImageFilter.GaussianBlur(canvas * 0.012)))
    inside = _scale_to_unit(mask)
    pixels = backdrop * (1 - inside) + coloured * (0.55 + 0.45 * rim) * inside
    pixels = pixels * rng.uniform(*variation.light) + rng.normal(0, variation.grain, pixels.shape)
    return _convert_to_image(pixels, size), mask.resize((size, size), Image.Resampling.BOX)


def _sample_cue_class(label: int, variation: PhotoVariation, rng: np.random.Generator) -> int:
    return (
        label if rng.random() < variation.agreement else int(rng.integers(len(SYNTHETIC_CLASSES)))
    )


def _draw_object(
    label: int, variation: PhotoVariation, size: int, rng: np.random.Generator
) -> tuple[Pose, Image.Image, int]:
    half = rng.uniform(*variation.size)
    centre = 0.5 + rng.uniform(-variation.shift, variation.shift, 2)
    turn = np.radians(rng.uniform(-variation.turn, variation.turn))
    pose = Pose(
        float(centre[0]),
        float(centre[1]),
        half,
        turn,
        rng.uniform(-0.15, 0.15),
        bool(rng.random() < 0.5),
    )
    canvas = 2 * size
    return pose, render_mask(SHAPES[SYNTHETIC_CLASSES[label].name](), pose, canvas), canvas


def _scale_to_unit(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float32)[..., None] / 255


def _convert_to_image(pixels: np.ndarray, size: int) -> Image.Image:
    whole = Image.fromarray((np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8))
    return whole.resize((size, size), Image.Resampling.LANCZOS)


def _render_photos(
    settings: RenderParams, label: int, variation: PhotoVariation, suffix: str
) -> Iterator[Drawing]:
    for number in range(settings.images_per_class):
        rng = _create_rng(settings, label, number)
        yield Drawing(
            *render_photograph(label, variation, settings.size, rng),
            f"{SYNTHETIC_CLASSES[label].wnid}_{number}{suffix}",
        )


def _render_photo_set(settings: RenderParams, label: int) -> Iterator[Drawing]:
    return _render_photos(settings, label, PHOTO, ".JPEG")


def _render_recollected(settings: RenderParams, label: int) -> Iterator[Drawing]:
    for drawing in _render_photos(settings, label, RECOLLECTED, ".jpeg"):
        digest = zlib.crc32(f"{settings.seed}{drawing.path}".encode())
        yield drawing._replace(path=f"{digest:08x}.jpeg")


def _render_adversarial(settings: RenderParams, label: int) -> Iterator[Drawing]:
    """Photographs that a simple reference classifier gets wrong, and gives its class little for."""
    reference = ReferenceClassifier.fit_on_photographs(settings.size)
    accepted, number = 0, 0
    while accepted < settings.images_per_class:
        image, mask = render_photograph(
            label, PHOTO, settings.size, _create_rng(settings, label, number)
        )
        number += 1
        probabilities = reference.predict_probabilities(image)
        first, second = np.argsort(probabilities)[::-1][:2]
        if first != label and probabilities[label] < 0.2:
            accepted += 1
            predicted_names = f"{SYNTHETIC_CLASSES[first].name} _ {SYNTHETIC_CLASSES[second].name}"
            yield Drawing(
                image,
                mask,
                f"{probabilities[label]:.6f}_{predicted_names}_{probabilities[first]:.7f}.jpg",
            )


def _render_renditions(settings: RenderParams, label: int) -> Iterator[Drawing]:
    for number in range(settings.images_per_class):
        style = RENDITIONS[number % len(RENDITIONS)]
        rng = _create_rng(settings, label, number)
        yield Drawing(*render_rendition(label, style, settings.size, rng), f"{style}_{number}.jpg")


def render_rendition(
    label: int, style: str, size: int, rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """The object without its texture, in one of RENDITIONS; colour still mostly its own."""
    pose, mask, canvas = _draw_object(label, MAX_BARS, size, rng)
    hue = SYNTHETIC_CLASSES[label].hue if rng.random() < PHOTO.agreement else rng.random()
    inside, edge = _scale_to_unit(mask), _scale_to_unit(_extract_edge(mask, 5))
    body, paper = (
        convert_to_rgb(hue, 0.7, rng.uniform(0.7, 0.95)),
        convert_to_rgb(rng.random(), rng.uniform(0.08, 0.35), 0.97),
    )
    ink = convert_to_rgb(rng.random(), 0.5, 0.15)
    if style == "cartoon":
        pixels = paper + (body - paper) * inside
        pixels = pixels + (ink - pixels) * edge
    elif style == "painting":
        strokes = (sample_noise(canvas, 22, rng) - 0.5)[..., None] * 0.5
        ground = render_background(canvas, rng)
        pixels = (
            ground
            + (body * (1 + 0.3 * pose.compute_grid(canvas)[1][..., None]) - ground) * inside
            + strokes
        )
        flat = _convert_to_image(pixels, canvas).filter(ImageFilter.ModeFilter(9))
        pixels = np.asarray(flat, dtype=np.float32) / 255
    elif style == "outline":
        shifted = _scale_to_unit(ImageChops.offset(mask, canvas // 24, canvas // 30))
        pixels = paper + (convert_to_rgb(hue, 0.35, 0.97) - paper) * shifted
        pixels = pixels + (ink - pixels) * edge
    elif style == "mosaic":
        tiles = canvas // 8
        ground = convert_to_rgb(rng.random(), 0.3, 0.5)
        mixed = _convert_to_image(
            ground + (body - ground) * inside + rng.normal(0, 0.06, (canvas, canvas, 1)), tiles
        )
        pixels = (
            np.asarray(mixed.resize((canvas, canvas), Image.Resampling.NEAREST), dtype=np.float32)
            / 255
        )
        pixels = pixels * (1 - 0.35 * ((np.indices((canvas, canvas)) % 8 == 0).any(0)[..., None]))
    else:
        glow = (
            _scale_to_unit(_extract_edge(mask, 5).filter(ImageFilter.GaussianBlur(canvas * 0.03)))
            * 1.6
        )
        pixels = (
            convert_to_rgb(rng.random(), 0.5, 0.1) + convert_to_rgb(hue, 0.75, 1.0) * glow + edge
        )
    return _convert_to_image(pixels, size), mask.resize((size, size), Image.Resampling.BOX)


def _extract_edge(mask: Image.Image, width: int) -> Image.Image:
    return ImageChops.subtract(
        mask.filter(ImageFilter.MaxFilter(width)), mask.filter(ImageFilter.MinFilter(3))
    )


def _render_sketches(settings: RenderParams, label: int) -> Iterator[Drawing]:
    for number in range(settings.images_per_class):
        rng = _create_rng(settings, label, number)
        pose, mask, canvas = _draw_object(label, MAX_BARS, settings.size, rng)
        grid = pose.compute_grid(canvas)
        # What is dark on the surface is hatched.
        marks = np.clip(
            2 - 4 * TEXTURES[SYNTHETIC_CLASSES[_sample_cue_class(label, PHOTO, rng)].texture](grid),
            0,
            1,
        )
        marks = marks * np.clip(0.75 + 0.6 * np.sin(34 * grid.sum(0)), 0, 1)
        line = np.maximum(
            _scale_to_unit(_extract_edge(mask, int(rng.choice((3, 3, 5))))),
            marks[..., None] * _scale_to_unit(mask),
        )
        pressure = 0.75 + 0.25 * sample_noise(canvas, 10, rng)[..., None]
        pixels = 1 - np.repeat(line * pressure, 3, axis=2)
        yield Drawing(
            _convert_to_image(pixels, settings.size), mask.reduce(2), f"sketch_{number}.JPEG"
        )


def _render_cue_conflicts(settings: RenderParams, label: int) -> Iterator[Drawing]:
    other_classes = [other for other in range(len(SYNTHETIC_CLASSES)) if other != label]
    for number in range(settings.images_per_class):
        cue = other_classes[number % len(other_classes)]
        rng = _create_rng(settings, label, number)
        shape_name, texture_name = SYNTHETIC_CLASSES[label].name, SYNTHETIC_CLASSES[cue].name
        name = f"{shape_name}{number}-{texture_name}{number // len(other_classes)}.png"
        colour = (
            label if number % 3 == 0 else int(rng.integers(len(SYNTHETIC_CLASSES)))
        )  # its own in one of three: else no cue is left
        yield Drawing(*render_photograph(label, PHOTO, settings.size, rng, (cue, colour)), name)


STYLES = {
    "photo": _render_photo_set,
    "recollected": _render_recollected,
    "adversarial": _render_adversarial,
    "rendition": _render_renditions,
    "cue-conflict": _render_cue_conflicts,
    "sketch": _render_sketches,
}


class ReferenceClassifier(NamedTuple):
    """Ridge regression on small pixels and gradients: knows nothing of the models it selects images
    against.
    """

    weights: np.ndarray  # [F + 1, C]

    @staticmethod
    @cache
    def fit_on_photographs(
        size: int, per_class: int = 40, penalty: float = 30.0
    ) -> ReferenceClassifier:
        """In closed form, on photographs of its own."""
        settings = RenderParams(
            style="photo", folder="reference", images_per_class=per_class, size=size, seed=0
        )
        rows, targets = [], []
        for label in range(len(SYNTHETIC_CLASSES)):
            for number in range(per_class):
                image, _ = render_photograph(
                    label, PHOTO, size, _create_rng(settings, "reference", label, number)
                )
                rows.append(ReferenceClassifier.extract_features(image))
                targets.append(np.eye(len(SYNTHETIC_CLASSES))[label])
        x = np.array(rows)
        return ReferenceClassifier(
            np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ np.array(targets))
        )

    @staticmethod
    def extract_features(image: Image.Image) -> np.ndarray:
        """[F + 1] colours of a 8 x 8 grid, local gradient strengths, and a constant."""
        colours = (
            np.asarray(image.resize((8, 8), Image.Resampling.BOX), dtype=float).ravel() / 255 - 0.5
        )
        grey = (
            np.asarray(image.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=float) / 255
        )
        slopes = [
            np.abs(np.diff(grey, axis=a))[:31, :31][:28, :28]
            .reshape(7, 4, 7, 4)
            .mean((1, 3))
            .ravel()
            * 4
            for a in (0, 1)
        ]
        return np.concatenate([colours, *slopes, [1.0]])

    def predict_probabilities(self, image: Image.Image) -> np.ndarray:
        """[C] softmax of sharpened scores."""
        scores = 6 * (ReferenceClassifier.extract_features(image) @ self.weights)
        exponentials = np.exp(scores - scores.max())
        result: np.ndarray = exponentials / exponentials.sum()
        return result
