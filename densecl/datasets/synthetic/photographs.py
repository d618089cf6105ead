"""Photograph-like drawings: an object of a class on a background. S: canvas size in pixels."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from densecl.datasets.synthetic.classes import DRAWN_CLASSES, NEW_LABELS, TRAINED_LABELS
from densecl.datasets.synthetic.shapes import SHAPES, Pose, render_mask
from densecl.datasets.synthetic.textures import render_background, render_surface, round_field


@dataclass(frozen=True)
class PhotoVariation:
    """Ranges that vary between the photograph datasets."""

    agreement: float = 0.8  # probability that the texture, and the colour, are the class's own
    size: tuple[float, float] = (0.26, 0.42)  # half the object's size, share of the image
    turn: float = 25  # degrees either way
    shift: float = 0.09  # of the centre, share of the image
    shear: float = 0.15  # either way
    # least share of the width, and of the height, that remains of an object turned away
    foreshortening: float = 1.0
    light: tuple[float, float] = (0.75, 1.1)
    grain: float = 0.007  # standard deviation of the noise of a pixel, of 1


PHOTO = PhotoVariation()
DRAWN = PhotoVariation(size=(0.32, 0.45), turn=12, shift=0.05)  # artists centre what they draw
RECOLLECTED = PhotoVariation(
    agreement=0.6, size=(0.2, 0.4), turn=45, shift=0.14, light=(0.55, 1.2), grain=0.018
)
VIEWPOINTS = {  # other poses and scales than those of PHOTO, by strength
    "slight": PhotoVariation(size=(0.22, 0.44), turn=60, shift=0.12, shear=0.2, foreshortening=0.8),
    "medium": PhotoVariation(
        size=(0.18, 0.46), turn=110, shift=0.15, shear=0.3, foreshortening=0.65
    ),
    "strong": PhotoVariation(size=(0.16, 0.5), turn=180, shift=0.18, shear=0.4, foreshortening=0.5),
}


class Drawing(NamedTuple):
    image: Image.Image
    mask: Image.Image  # of the object: mode L, same size
    name: str = ""  # of the image file


def render_photograph(
    label: int,
    variation: PhotoVariation,
    size: int,
    rng: np.random.Generator,
    surface_classes: tuple[int, int] | None = None,
) -> Drawing:
    """An object on a background, and its mask; `surface_classes` gives the classes of its texture
    and colour.
    """
    pose = sample_pose(variation, rng)
    mask = draw_mask(label, pose, size, oversampling=8)
    sampled = sample_cue_class(label, variation, rng), sample_cue_class(label, variation, rng)
    texture, colour = (DRAWN_CLASSES[index] for index in surface_classes or sampled)
    grid = pose.compute_grid(size)
    # Light from the upper left.
    shade = 1 - 0.3 * np.clip(0.7 * grid[0] + 0.7 * grid[1], -0.6, 1)
    surface = render_surface(texture.texture, colour.hue, grid, rng) * round_field(shade)
    background = render_background(size, rng)
    shadow = ImageChops.offset(blur(mask, 0.025), size // 40, size // 28)
    background = background * (1 - 0.45 * scale_to_unit(shadow))
    rim, inside = scale_to_unit(blur(mask, 0.012)), scale_to_unit(mask)
    surface = surface * (0.55 + 0.45 * rim)
    pixels = (background + (surface - background) * inside) * rng.uniform(*variation.light)
    pixels += variation.grain * rng.standard_normal(pixels.shape, dtype=np.float32)
    return Drawing(convert_to_image(pixels), mask)


def sample_cue_class(label: int, variation: PhotoVariation, rng: np.random.Generator) -> int:
    """The class of a texture or colour: mostly `label`, else any of the classes it is among."""
    if rng.random() < variation.agreement:
        return label
    labels = NEW_LABELS if label in NEW_LABELS else TRAINED_LABELS
    return labels[int(rng.integers(len(labels)))]


def sample_pose(variation: PhotoVariation, rng: np.random.Generator) -> Pose:
    half = rng.uniform(*variation.size)
    x, y = 0.5 + rng.uniform(-variation.shift, variation.shift, 2)
    turn = np.radians(rng.uniform(-variation.turn, variation.turn))
    shear = rng.uniform(-variation.shear, variation.shear)
    pose = Pose(x, y, half, turn, shear, rng.random() < 0.5)
    if variation.foreshortening == 1.0:
        return pose
    width, height = rng.uniform(variation.foreshortening, 1.0, 2)
    return pose._replace(width=width, height=height)


def draw_mask(label: int, pose: Pose, size: int, oversampling: int = 4) -> Image.Image:
    return render_mask(SHAPES[DRAWN_CLASSES[label].name], pose, size, oversampling)


def scale_to_unit(image: Image.Image) -> np.ndarray:
    """[S, S] of a mask or [3, S, S] of an image, float32 in 0..1."""
    values = np.asarray(image).astype(np.float32) / 255
    return values if values.ndim == 2 else values.transpose(2, 0, 1)


def convert_to_image(pixels: np.ndarray) -> Image.Image:
    """Mode RGB, of [3, S, S] in 0..1."""
    levels = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))


def blur(mask: Image.Image, share: float) -> Image.Image:
    """Gaussian blur with a standard deviation of this share of the canvas."""
    return mask.filter(ImageFilter.GaussianBlur(mask.width * share))
