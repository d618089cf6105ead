"""Surfaces and backgrounds of the built-in images. S: canvas size in pixels.

Fields are computed in float64: sines in float32 differ between CPU kinds by enough to change
bytes. Colours are mixed in float32, with additions and products alone, which are exact everywhere.
"""

import colorsys
from collections.abc import Callable

import numpy as np
from PIL import Image

Field = np.ndarray  # [S, S] in 0..1
Texture = Callable[[np.ndarray], Field]  # of object coordinates [2, S, S]


def _make_wave(phase: np.ndarray) -> Field:
    return 0.5 + 0.5 * np.sin(2 * np.pi * phase)


def _sharpen_field(field: Field) -> Field:
    """Increase contrast, still antialiased."""
    return np.clip((field - 0.5) * 4 + 0.5, 0, 1)


def sample_noise(size: int, cells: int, rng: np.random.Generator) -> Field:
    """Smooth random field with about `cells` bumps per side."""
    coarse = Image.fromarray(rng.random((cells + 1, cells + 1), dtype=np.float32))
    fine = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
    return np.asarray(np.clip(fine, 0, 1))


def _make_scales(g: np.ndarray) -> Field:
    row = np.floor(g[1] * 4)
    x = (g[0] * 4 + 0.5 * (row % 2)) % 1 - 0.5
    y = (g[1] * 4) % 1
    return np.asarray(np.clip(1.4 - 2 * np.hypot(x, y - 0.1), 0, 1))


def _make_bricks(g: np.ndarray) -> Field:
    row = np.floor(g[1] * 4)
    x, y = (g[0] * 2 + 0.5 * (row % 2)) % 1, (g[1] * 4) % 1
    return np.asarray(
        np.clip(np.minimum(np.minimum(x, 1 - x) * 12, np.minimum(y, 1 - y) * 6), 0, 1)
    )


TEXTURES: dict[str, Texture] = {
    "rings": lambda g: _sharpen_field(_make_wave(2.6 * np.hypot(*g))),
    "stripes": lambda g: _sharpen_field(_make_wave(2.6 * g[0])),
    "scales": _make_scales,
    "dots": lambda g: _sharpen_field(1.15 - 3.2 * np.hypot(*((g * 2.6) % 1 - 0.5))),
    "bricks": _make_bricks,
    "brushed": lambda g: (
        _make_wave(9 * g[1] + 2 * np.sin(3 * g[0])) * 0.6 + 0.4 * _make_wave(0.7 * g[1])
    ),
    "bands": lambda g: _sharpen_field(_make_wave(2.4 * g[1])),
    "speckles": lambda g: _sharpen_field(
        0.4
        + np.sin(6.1 * g[0] + 2 * np.sin(4.7 * g[1])) * np.sin(7.3 * g[1] + 2 * np.sin(5.3 * g[0]))
    ),
    "checks": lambda g: _sharpen_field(0.5 + 0.9 * np.sin(8.5 * g[0]) * np.sin(8.5 * g[1])),
    "zigzag": lambda g: _sharpen_field(
        _make_wave(2.4 * g[1] + 0.6 * np.abs((g[0] * 2.4) % 1 - 0.5))
    ),
    "clouds": lambda g: (
        _make_wave(0.45 * g[0] + 0.3 * np.sin(2.2 * g[1])) * _make_wave(0.5 * g[1] + 0.2)
    ),
    "wedges": lambda g: _sharpen_field(_make_wave(np.arctan2(g[1], g[0]) * 8 / (2 * np.pi))),
}


def convert_to_rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """[3, 1, 1] float32 in [0, 1]."""
    saturation, value = min(max(saturation, 0), 1), min(max(value, 0), 1)
    colour = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return np.array(colour, dtype=np.float32)[:, None, None]


def round_field(field: Field) -> np.ndarray:
    """[S, S] float32, to mix colours with."""
    return field.astype(np.float32)


def render_surface(
    texture: str, hue: float, grid: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """[3, S, S] float32 in two tones of one hue."""
    field = round_field(TEXTURES[texture](grid))
    hue += rng.normal(0, 0.015)
    vivid, bold = rng.uniform(0.75, 1), rng.uniform(0.7, 1)
    dark = convert_to_rgb(hue, vivid * rng.uniform(0.7, 0.95), rng.uniform(0.3, 0.5))
    light = convert_to_rgb(hue + 0.04, vivid * rng.uniform(0.3, 0.6), rng.uniform(0.85, 1.0))
    flat = dark + (light - dark) * rng.random()
    return np.asarray(flat + (dark + (light - dark) * field - flat) * bold)


def render_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """[3, S, S] float32: two soft colours meeting along a hazy line and blurred clutter, or a plain
    wall; independent of the class.
    """
    if rng.random() < 0.15:
        wall = convert_to_rgb(rng.random(), rng.uniform(0, 0.4), rng.uniform(0.5, 1.0))
        return np.asarray(wall * round_field(0.95 + 0.1 * sample_noise(size, 3, rng)))
    hue = rng.random()
    far, near = (
        convert_to_rgb(hue, rng.uniform(0.1, 0.45), rng.uniform(0.6, 0.95)),
        convert_to_rgb(
            hue + rng.uniform(0.1, 0.6), rng.uniform(0.15, 0.5), rng.uniform(0.35, 0.85)
        ),
    )
    across = np.arange(size) / size
    down = across[:, None]
    line = (
        rng.uniform(0.3, 0.9)
        + rng.normal(0, 0.15) * (across - 0.5)
        + 0.1 * (sample_noise(size, 3, rng) - 0.5)
    )
    blend = np.clip((down - line) / rng.uniform(0.04, 0.4) + 0.5, 0, 1)
    field = far + (near - far) * round_field(blend)
    for _ in range(rng.integers(1, 5)):
        radius = np.hypot(
            across - rng.random(), (down - rng.random()) * rng.uniform(0.6, 1.6)
        ) / rng.uniform(0.08, 0.3)
        spot = round_field(np.clip(1.5 - radius, 0, 1)) * rng.uniform(0.25, 0.7)
        colour = convert_to_rgb(rng.random(), rng.uniform(0.2, 0.6), rng.uniform(0.3, 0.95))
        field += (colour - field) * spot
    return np.asarray(field * round_field(0.92 + 0.16 * sample_noise(size, 9, rng)))
