"""Outlines of the built-in classes, in a square of -1..1 with y downwards."""

from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Points = np.ndarray  # [P, 2]


class ShapePart(NamedTuple):
    """A filled outline, or a hole if `filled` is false. Later parts are drawn over earlier ones."""

    points: Points
    filled: bool = True


def make_polygon(*points: tuple[float, float], filled: bool = True) -> ShapePart:
    """A polygon through these points."""
    return ShapePart(np.array(points, dtype=float), filled)


def make_box(
    left: float, top: float, right: float, bottom: float, filled: bool = True
) -> ShapePart:
    """A rectangle."""
    corners = (left, top), (right, top), (right, bottom), (left, bottom)
    return make_polygon(*corners, filled=filled)


def make_ellipse(
    x: float,
    y: float,
    rx: float,
    ry: float,
    start: float = 0,
    end: float = 360,
    filled: bool = True,
) -> ShapePart:
    """An ellipse or arc; angles in degrees, clockwise from the right since y points down."""
    angle = np.radians(np.linspace(start, end, 48))
    return ShapePart(np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], 1), filled)


def make_gear() -> ShapePart:
    """A wheel of eight teeth."""
    angle = np.radians(np.arange(32) * 11.25)
    radius = np.where(np.arange(32) % 4 < 2, 1.0, 0.72)
    return ShapePart(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))


def make_star() -> ShapePart:
    """A star of five points."""
    angle = np.radians(np.arange(10) * 36 - 90)
    radius = np.where(np.arange(10) % 2, 0.42, 1.0)
    return ShapePart(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1))


def make_heart() -> ShapePart:
    """The heart curve."""
    t = np.linspace(0, 2 * np.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return ShapePart(np.stack([x / 17, y / 17], 1))


SHAPES: dict[str, list[ShapePart]] = {
    "arrow": [
        make_polygon(
            (-1, -0.2), (0.15, -0.2), (0.15, -0.6), (1, 0), (0.15, 0.6), (0.15, 0.2), (-1, 0.2)
        )
    ],
    "bell": [
        make_ellipse(0, 0.72, 0.22, 0.22),
        make_ellipse(0, -0.3, 0.5, 0.65, 180, 360),
        make_polygon((-0.5, -0.3), (0.5, -0.3), (0.85, 0.65), (-0.85, 0.65)),
    ],
    "boat": [
        make_polygon((-1, 0.3), (1, 0.3), (0.6, 0.85), (-0.6, 0.85)),
        make_box(-0.07, -0.95, 0.07, 0.32),
        make_polygon((0.14, -0.9), (0.85, 0.15), (0.14, 0.15)),
        make_polygon((-0.14, -0.6), (-0.14, 0.15), (-0.7, 0.15)),
    ],
    "bottle": [
        make_box(-0.4, -0.15, 0.4, 1),
        make_ellipse(0, -0.15, 0.4, 0.35, 180, 360),
        make_box(-0.15, -0.9, 0.15, -0.2),
        make_box(-0.2, -1, 0.2, -0.85),
    ],
    "gear": [make_gear(), make_ellipse(0, 0, 0.3, 0.3, filled=False)],
    "hammer": [
        make_box(-0.12, -0.5, 0.12, 1),
        make_polygon((-0.7, -0.95), (0.4, -0.95), (0.85, -0.6), (0.4, -0.4), (-0.7, -0.4)),
    ],
    "butterfly": [
        *(make_ellipse(s * 0.5, -0.4, 0.48, 0.5) for s in (-1, 1)),
        *(make_ellipse(s * 0.4, 0.45, 0.38, 0.42) for s in (-1, 1)),
        *(
            make_polygon((s * 0.02, -0.6), (s * 0.28, -1.0), (s * 0.36, -0.96), (s * 0.1, -0.55))
            for s in (-1, 1)
        ),
        make_ellipse(0, 0.05, 0.17, 0.72),
    ],
    "crescent": [
        make_ellipse(0, 0, 0.95, 0.95),
        make_ellipse(0.42, -0.12, 0.74, 0.74, filled=False),
    ],
    "fish": [
        make_ellipse(-0.2, 0, 0.75, 0.45),
        make_polygon((0.4, 0), (1, -0.5), (0.82, 0), (1, 0.5)),
        make_polygon((-0.35, -0.38), (0.1, -0.75), (0.2, -0.35)),
        make_ellipse(-0.62, -0.1, 0.08, 0.08, filled=False),
    ],
    "heart": [make_heart()],
    "house": [
        make_polygon((-1, -0.1), (0, -0.95), (1, -0.1)),
        make_box(-0.75, -0.12, 0.75, 0.9),
        make_box(0.4, -0.9, 0.65, -0.2),
        make_box(-0.18, 0.3, 0.2, 0.9, filled=False),
    ],
    "key": [
        make_ellipse(-0.55, 0, 0.45, 0.45),
        make_ellipse(-0.6, 0, 0.2, 0.2, filled=False),
        make_box(-0.15, -0.12, 1, 0.14),
        *(make_box(x, 0.1, x + 0.14, 0.48) for x in (0.45, 0.74)),
    ],
    "mug": [
        make_ellipse(0.45, 0.05, 0.5, 0.5),
        make_ellipse(0.45, 0.05, 0.28, 0.28, filled=False),
        make_polygon((-0.8, -0.8), (0.45, -0.8), (0.38, 0.85), (-0.7, 0.85)),
    ],
    "mushroom": [
        make_ellipse(0, 0.05, 0.98, 0.95, 180, 360),
        make_polygon((-0.25, 0), (0.25, 0), (0.36, 0.95), (-0.36, 0.95)),
    ],
    "plane": [
        make_ellipse(0, 0, 0.16, 1.0),
        make_polygon((0, -0.25), (1, 0.25), (1, 0.45), (0, 0.2), (-1, 0.45), (-1, 0.25)),
        make_polygon((0, 0.6), (0.42, 0.85), (0.42, 0.98), (0, 0.88), (-0.42, 0.98), (-0.42, 0.85)),
    ],
    "star": [make_star()],
    "tree": [
        *(
            make_polygon((0, top), (half, base), (-half, base))
            for top, base, half in ((-1.0, -0.35, 0.5), (-0.6, 0.15, 0.7), (-0.15, 0.65, 0.9))
        ),
        make_box(-0.15, 0.6, 0.15, 1),
    ],
    "umbrella": [
        make_ellipse(0, 0, 0.98, 0.9, 180, 360),
        *(make_ellipse(x, 0.02, 0.32, 0.2, filled=False) for x in (-0.64, 0.0, 0.64)),
        make_box(-0.06, -0.1, 0.06, 0.8),
        make_ellipse(0.2, 0.75, 0.26, 0.25, 0, 180),
        make_ellipse(0.2, 0.73, 0.13, 0.13, 0, 180, filled=False),
    ],
}


class Pose(NamedTuple):
    """Placement of an object: centre and half-size as shares of the image, rotation and shear, and
    the shares of its width and height that are seen of it (less than 1: it is turned away).
    """

    x: float
    y: float
    size: float
    radians: float
    shear: float
    mirrored: bool
    width: float = 1.0
    height: float = 1.0

    def transform_points(self, points: Points) -> Points:
        """Map object coordinates to shares of the image."""
        flip = -self.width if self.mirrored else self.width
        c, s = np.cos(self.radians), np.sin(self.radians)
        matrix = np.array([[c, -s], [s, c]]) @ np.array([[flip, self.shear], [0, self.height]])
        return np.asarray(points @ matrix.T * self.size + (self.x, self.y))

    def compute_grid(self, size: int) -> np.ndarray:
        """[2, size, size] object coordinates of each pixel centre, so that textures turn with the
        object.
        """
        share = (np.arange(size) + 0.5) / size
        x, y = np.meshgrid(share - self.x, share - self.y)
        c, s = np.cos(-self.radians), np.sin(-self.radians)
        turned = np.stack([c * x - s * y, s * x + c * y]) / self.size
        return np.asarray(turned / np.array([self.width, self.height])[:, None, None])


def render_mask(parts: list[ShapePart], pose: Pose, size: int, oversampling: int) -> Image.Image:
    """Mask, mode L, `size` px square, antialiased by `oversampling` steps per pixel."""
    fine = oversampling * size
    mask = Image.new("L", (fine, fine), 0)
    draw = ImageDraw.Draw(mask)
    for points, filled in parts:
        outline = pose.transform_points(points) * fine
        draw.polygon(outline.ravel().tolist(), fill=255 if filled else 0)
    return mask.reduce(oversampling)
