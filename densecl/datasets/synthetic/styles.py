"""The built-in datasets: drawn by code, in the layouts of the archives that they imitate.

The shape of an object always decides its class; its texture and its colour agree with the class
four times in five; pose, size, light and background are random. A small ViT therefore learns in
minutes and relies on texture and colour, and each shifted dataset is a real shift.
"""

import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from densecl.config.params import RenderParams
from densecl.datasets.synthetic.classes import (
    DRAWN_CLASSES,
    SUBSETS,
    SYNTHETIC_CLASSES,
    TRAINED_LABELS,
)
from densecl.datasets.synthetic.photographs import (
    DRAWN,
    PHOTO,
    RECOLLECTED,
    VIEWPOINTS,
    Drawing,
    blur,
    convert_to_image,
    draw_mask,
    render_photograph,
    sample_cue_class,
    sample_pose,
    scale_to_unit,
)
from densecl.datasets.synthetic.textures import (
    TEXTURES,
    convert_to_rgb,
    render_background,
    round_field,
    sample_noise,
)
from densecl.runtime.hardware import count_workers
from densecl.runtime.signals import exit_worker_with_parent
from densecl.seeding import derive_seed

JPEG_QUALITY = 92
RENDITIONS = ("cartoon", "painting", "outline", "mosaic", "neon")


def render_dataset(settings: RenderParams, images: Path, masks: Path) -> int:
    """Write the images and their object masks (same paths, .png); return the number of images.
    Equal settings give equal bytes.
    """
    labels = SUBSETS.get(settings.style, TRAINED_LABELS)
    render = partial(_render_class, settings, images, masks)
    workers = count_workers()
    if workers < 2:
        for label in labels:
            render(label)
    else:
        context = get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=exit_worker_with_parent) as pool:
            for _ in pool.map(render, labels):
                pass  # raises what a process raised
    if settings.style in ("adversarial", "rendition"):
        (images / "README.txt").write_text(
            f"Built-in {settings.style} images, drawn by code. Folder = class.\n", encoding="utf-8"
        )
    return len(labels) * settings.images_per_class


def _render_class(settings: RenderParams, images: Path, masks: Path, label: int) -> None:
    folder = str(label) if settings.style == "recollected" else DRAWN_CLASSES[label].wnid
    image_folder, mask_folder = images / folder, masks / folder
    image_folder.mkdir(parents=True, exist_ok=True)
    mask_folder.mkdir(parents=True, exist_ok=True)
    candidates = (
        STYLES[settings.style](settings, label, number, _create_rng(settings, label, number))
        for number in count()
    )
    for drawing in islice(filter(None, candidates), settings.images_per_class):
        drawing.image.save(image_folder / drawing.name, quality=JPEG_QUALITY)  # PNG ignores it
        drawing.mask.save((mask_folder / drawing.name).with_suffix(".png"))


def _create_rng(settings: RenderParams, *words: str | int) -> np.random.Generator:
    return np.random.default_rng(
        derive_seed(settings.seed, "render", settings.style, settings.folder, settings.size, *words)
    )


def _shrink(pixels: np.ndarray, mask: Image.Image) -> Drawing:
    """Half the canvas."""
    size = (mask.width // 2, mask.height // 2)
    image = convert_to_image(pixels).resize(size, Image.Resampling.LANCZOS)
    return Drawing(image, mask.reduce(2))


def _extract_edge(mask: Image.Image, width: int) -> Image.Image:
    return ImageChops.subtract(
        mask.filter(ImageFilter.MaxFilter(width)), mask.filter(ImageFilter.MinFilter(3))
    )


def _render_photo(
    settings: RenderParams, label: int, number: int, rng: np.random.Generator
) -> Drawing:
    drawing = render_photograph(label, PHOTO, settings.size, rng)
    return drawing._replace(name=f"{DRAWN_CLASSES[label].wnid}_{number}.JPEG")


def _render_viewpoint(
    settings: RenderParams, label: int, number: int, rng: np.random.Generator
) -> Drawing:
    """A photograph of the object from elsewhere, one of VIEWPOINTS in turn."""
    strength = tuple(VIEWPOINTS)[number % len(VIEWPOINTS)]
    drawing = render_photograph(label, VIEWPOINTS[strength], settings.size, rng)
    return drawing._replace(name=f"{strength}_{number}.JPEG")


def _render_recollected(
    settings: RenderParams, label: int, number: int, rng: np.random.Generator
) -> Drawing:
    drawing = render_photograph(label, RECOLLECTED, settings.size, rng)
    words = f"{settings.seed}{DRAWN_CLASSES[label].wnid}_{number}.jpeg"
    return drawing._replace(name=f"{zlib.crc32(words.encode()):08x}.jpeg")


def _render_adversarial(
    settings: RenderParams,
    label: int,
    number: int,  # noqa: ARG001
    rng: np.random.Generator,
) -> Drawing | None:
    """Photographs that a simple reference classifier misclassifies with a low probability of the
    true class.
    """
    drawing = render_photograph(label, PHOTO, settings.size, rng)
    probabilities = predict_reference(drawing.image, settings.size)
    first, second = np.argsort(probabilities)[::-1][:2]
    if first == label or probabilities[label] >= 0.2:
        return None
    names = f"{SYNTHETIC_CLASSES[first].name} _ {SYNTHETIC_CLASSES[second].name}"
    return drawing._replace(
        name=f"{probabilities[label]:.6f}_{names}_{probabilities[first]:.7f}.jpg"
    )


def _render_rendition(
    settings: RenderParams, label: int, number: int, rng: np.random.Generator
) -> Drawing:
    """The object without its texture, in one of RENDITIONS; its colour is mostly the class's."""
    style = RENDITIONS[number % len(RENDITIONS)]
    canvas = 2 * settings.size  # edges are filtered: drawn fine, then halved
    pose = sample_pose(DRAWN, rng)
    mask = draw_mask(label, pose, canvas)
    hue = SYNTHETIC_CLASSES[label].hue if rng.random() < PHOTO.agreement else rng.random()
    edge_mask = _extract_edge(mask, 5)
    inside, edge = scale_to_unit(mask), scale_to_unit(edge_mask)
    body = convert_to_rgb(hue, 0.7, rng.uniform(0.7, 0.95))
    paper = convert_to_rgb(rng.random(), rng.uniform(0.08, 0.35), 0.97)
    ink = convert_to_rgb(rng.random(), 0.5, 0.15)
    if style == "cartoon":
        pixels = paper + (body - paper) * inside
        pixels = pixels + (ink - pixels) * edge
    elif style == "painting":
        strokes = round_field(sample_noise(canvas, 22, rng) - 0.5) * 0.5
        ground = render_background(canvas, rng)
        shaded = body * (1 + 0.3 * round_field(pose.compute_grid(canvas)[1]))
        painted = convert_to_image(ground + (shaded - ground) * inside + strokes)
        pixels = scale_to_unit(painted.filter(ImageFilter.ModeFilter(9)))
    elif style == "outline":
        shifted = scale_to_unit(ImageChops.offset(mask, canvas // 24, canvas // 30))
        pixels = paper + (convert_to_rgb(hue, 0.35, 0.97) - paper) * shifted
        pixels = pixels + (ink - pixels) * edge
    elif style == "mosaic":
        ground = convert_to_rgb(rng.random(), 0.3, 0.5)
        speckle = 0.06 * rng.standard_normal((canvas, canvas), dtype=np.float32)
        mixed = convert_to_image(ground + (body - ground) * inside + speckle)
        tiles = mixed.resize((canvas // 8, canvas // 8), Image.Resampling.LANCZOS)
        pixels = scale_to_unit(tiles.resize(mask.size, Image.Resampling.NEAREST))
        joint = np.arange(canvas) % 8 == 0
        pixels = pixels * (1 - 0.35 * round_field(joint | joint[:, None]))
    else:
        night = convert_to_rgb(rng.random(), 0.5, 0.1)
        glow = scale_to_unit(blur(edge_mask, 0.03)) * 1.6
        pixels = night + convert_to_rgb(hue, 0.75, 1.0) * glow + edge
    return _shrink(pixels, mask)._replace(name=f"{style}_{number}.jpg")


def _render_sketch(
    settings: RenderParams, label: int, number: int, rng: np.random.Generator
) -> Drawing:
    pose = sample_pose(DRAWN, rng)
    mask = draw_mask(label, pose, 2 * settings.size)
    grid = pose.compute_grid(mask.width)
    texture = SYNTHETIC_CLASSES[sample_cue_class(label, PHOTO, rng)].texture
    marks = 0.85 * np.clip(2 - 4 * TEXTURES[texture](grid), 0, 1)  # dark areas are shaded
    edge = scale_to_unit(_extract_edge(mask, int(rng.choice((3, 3, 5)))))
    line = np.maximum(edge, round_field(marks) * scale_to_unit(mask))
    pressure = 0.75 + 0.25 * round_field(sample_noise(mask.width, 10, rng))
    pixels = np.repeat(1 - line[None] * pressure, 3, axis=0)
    return _shrink(pixels, mask)._replace(name=f"sketch_{number}.JPEG")


def _render_cue_conflict(
    settings: RenderParams, label: int, number: int, rng: np.random.Generator
) -> Drawing:
    """The shape of one class with the texture of another."""
    others = [other for other in range(len(SYNTHETIC_CLASSES)) if other != label]
    repeat, position = divmod(number, len(others))
    cue = others[position]
    # Its own in one of three: else no cue is left.
    colour = label if number % 3 == 0 else int(rng.integers(len(SYNTHETIC_CLASSES)))
    drawing = render_photograph(label, PHOTO, settings.size, rng, (cue, colour))
    shape_name, texture_name = SYNTHETIC_CLASSES[label].name, SYNTHETIC_CLASSES[cue].name
    return drawing._replace(name=f"{shape_name}{number}-{texture_name}{repeat}.png")


STYLES: dict[str, Callable[[RenderParams, int, int, np.random.Generator], Drawing | None]] = {
    "photo": _render_photo,
    "viewpoint": _render_viewpoint,
    "new-classes": _render_photo,
    "recollected": _render_recollected,
    "adversarial": _render_adversarial,
    "rendition": _render_rendition,
    "cue-conflict": _render_cue_conflict,
    "sketch": _render_sketch,
}


@cache
def fit_reference(size: int, per_class: int = 40, penalty: float = 30.0) -> np.ndarray:
    """[F + 1, C] weights of a ridge regression on small pixels and gradients, fitted in closed form
    on photographs of its own: independent of the models under test.
    """
    settings = RenderParams(
        style="photo", folder="reference", images_per_class=per_class, size=size, seed=0
    )
    labels, features = np.repeat(np.arange(len(SYNTHETIC_CLASSES)), per_class), []
    for position, label in enumerate(labels.tolist()):
        rng = _create_rng(settings, "reference", label, position % per_class)
        features.append(_extract_features(render_photograph(label, PHOTO, size, rng).image))
    x, targets = np.array(features), np.eye(len(SYNTHETIC_CLASSES))[labels]
    ridge = penalty * np.eye(x.shape[1])
    return np.linalg.solve(x.T @ x + ridge, x.T @ targets)


def predict_reference(image: Image.Image, size: int) -> np.ndarray:
    """[C] probabilities of the reference classifier of this image size."""
    scores = 6 * (_extract_features(image) @ fit_reference(size))  # sharpened
    exponentials = np.exp(scores - scores.max())
    return np.asarray(exponentials / exponentials.sum())


def _extract_features(image: Image.Image) -> np.ndarray:
    """[F + 1] colours of an 8 x 8 grid, local gradient strengths, and a constant."""
    small = image.resize((8, 8), Image.Resampling.BOX)
    colours = np.asarray(small, dtype=float).ravel() / 255 - 0.5
    grey = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    gradients = [np.diff(np.asarray(grey, dtype=float) / 255, axis=axis) for axis in (0, 1)]
    strengths = [
        np.abs(gradient)[:28, :28].reshape(7, 4, 7, 4).mean((1, 3)).ravel() * 4
        for gradient in gradients
    ]
    return np.concatenate([colours, *strengths, [1.0]])
