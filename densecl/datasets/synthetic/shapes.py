"""Outlines of the built-in classes, in a square of -1..1 with y downwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Points = np.ndarray  # [P, 2]


class Part(NamedTuple):
    """A filled outline; a hole where `filled` is false. Later parts are drawn over earlier ones."""

    points: Points
    filled: bool = True


def polygon(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=float)


def ellipse(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Points:
    """Arc in degrees, clockwise from the right as y points down."""
    angle = np.radians(np.linspace(start, end, 48))
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    return polygon((left, top), (right, top), (right, bottom), (left, bottom))


def star() -> list[Part]:
    angle = np.radians(np.arange(10) * 36 - 90)
    radius = np.where(np.arange(10) % 2, 0.42, 1.0)
    return [Part(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))]


def heart() -> list[Part]:
    t = np.linspace(0, 2 * np.pi, 60)
    x, y = (
        16 * np.sin(t) ** 3,
        -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)),
    )
    return [Part(np.stack([x / 17, y / 17], 1))]


def crescent() -> list[Part]:
    return [Part(ellipse(0, 0, 0.95, 0.95)), Part(ellipse(0.42, -0.12, 0.74, 0.74), filled=False)]


def house() -> list[Part]:
    return [
        Part(polygon((-1, -0.1), (0, -0.95), (1, -0.1))),
        Part(box(-0.75, -0.12, 0.75, 0.9)),
        Part(box(0.4, -0.9, 0.65, -0.2)),
        Part(box(-0.18, 0.3, 0.2, 0.9), filled=False),
    ]


def tree() -> list[Part]:
    tiers = [(-1.0, -0.35, 0.5), (-0.6, 0.15, 0.7), (-0.15, 0.65, 0.9)]
    return [Part(polygon((0, top), (half, base), (-half, base))) for top, base, half in tiers] + [
        Part(box(-0.15, 0.6, 0.15, 1))
    ]


def fish() -> list[Part]:
    return [
        Part(ellipse(-0.2, 0, 0.75, 0.45)),
        Part(polygon((0.4, 0), (1, -0.5), (0.82, 0), (1, 0.5))),
        Part(polygon((-0.35, -0.38), (0.1, -0.75), (0.2, -0.35))),
        Part(ellipse(-0.62, -0.1, 0.08, 0.08), filled=False),
    ]


def mug() -> list[Part]:
    return [
        Part(ellipse(0.45, 0.05, 0.5, 0.5)),
        Part(ellipse(0.45, 0.05, 0.28, 0.28), filled=False),
        Part(polygon((-0.8, -0.8), (0.45, -0.8), (0.38, 0.85), (-0.7, 0.85))),
    ]


def key() -> list[Part]:
    teeth = [Part(box(x, 0.1, x + 0.14, 0.48)) for x in (0.45, 0.74)]
    return [
        Part(ellipse(-0.55, 0, 0.45, 0.45)),
        Part(ellipse(-0.6, 0, 0.2, 0.2), filled=False),
        Part(box(-0.15, -0.12, 1, 0.14)),
        *teeth,
    ]


def umbrella() -> list[Part]:
    scallops = [Part(ellipse(x, 0.02, 0.32, 0.2), filled=False) for x in (-0.64, 0.0, 0.64)]
    return [
        Part(ellipse(0, 0, 0.98, 0.9, 180, 360)),
        *scallops,
        Part(box(-0.06, -0.1, 0.06, 0.8)),
        Part(ellipse(0.2, 0.75, 0.26, 0.25, 0, 180)),
        Part(ellipse(0.2, 0.73, 0.13, 0.13, 0, 180), filled=False),
    ]


def plane() -> list[Part]:
    return [
        Part(ellipse(0, 0, 0.16, 1.0)),
        Part(polygon((0, -0.25), (1, 0.25), (1, 0.45), (0, 0.2), (-1, 0.45), (-1, 0.25))),
        Part(
            polygon((0, 0.6), (0.42, 0.85), (0.42, 0.98), (0, 0.88), (-0.42, 0.98), (-0.42, 0.85))
        ),
    ]


def butterfly() -> list[Part]:
    wings = [Part(ellipse(s * 0.5, -0.4, 0.48, 0.5)) for s in (-1, 1)] + [
        Part(ellipse(s * 0.4, 0.45, 0.38, 0.42)) for s in (-1, 1)
    ]
    feelers = [
        Part(polygon((s * 0.02, -0.6), (s * 0.28, -1.0), (s * 0.36, -0.96), (s * 0.1, -0.55)))
        for s in (-1, 1)
    ]
    return [*wings, *feelers, Part(ellipse(0, 0.05, 0.17, 0.72))]


def mushroom() -> list[Part]:
    return [
        Part(ellipse(0, 0.05, 0.98, 0.95, 180, 360)),
        Part(polygon((-0.25, 0), (0.25, 0), (0.36, 0.95), (-0.36, 0.95))),
    ]


class Pose(NamedTuple):
    """Where an object lies: centre and half-size as shares of the image, rotation and shear."""

    x: float
    y: float
    size: float
    radians: float
    shear: float
    mirrored: bool

    def place(self, points: Points) -> Points:
        """Object coordinates to shares of the image."""
        flip = -1 if self.mirrored else 1
        c, s = np.cos(self.radians), np.sin(self.radians)
        matrix = np.array([[c, -s], [s, c]]) @ np.array([[flip, self.shear], [0, 1]])
        return points @ matrix.T * self.size + (self.x, self.y)

    def grid(self, size: int) -> np.ndarray:
        """[2, size, size] object coordinates of each pixel's centre: textures turn with the
        object.
        """
        share = (np.arange(size) + 0.5) / size
        x, y = np.meshgrid(share - self.x, share - self.y)
        c, s = np.cos(-self.radians), np.sin(-self.radians)
        return np.stack([c * x - s * y, s * x + c * y]) / self.size


def mask_of(parts: list[Part], pose: Pose, size: int) -> Image.Image:
    """Antialiased mask, mode L, `size` px square."""
    fine = 4 * size
    mask = Image.new("L", (fine, fine), 0)
    draw = ImageDraw.Draw(mask)
    for part in parts:
        draw.polygon(
            [tuple(p) for p in pose.place(part.points) * fine], fill=255 if part.filled else 0
        )
    return mask.reduce(4)


SHAPES: dict[str, Callable[[], list[Part]]] = {
    f.__name__: f
    for f in (
        butterfly,
        crescent,
        fish,
        heart,
        house,
        key,
        mug,
        mushroom,
        plane,
        star,
        tree,
        umbrella,
    )
}
