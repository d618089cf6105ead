"""A drawn image, and some pixels of what the authors' packages make of it."""

import csv
from pathlib import Path

import numpy as np

from densecl.evaluation.corruptions.corrupt import CORRUPTIONS, truncate_pixels

# Made by published_corruptions.py, which test_published_corruptions.py runs.
SAMPLES = Path(__file__).parent / "published_corruptions.csv"
ROWS = np.array([10, 40, 75, 110, 160, 215])[:, None]
COLUMNS = np.array([20, 90, 130, 205])
SEED = 0


def draw_image(side: int = 224) -> np.ndarray:
    """Ramps with steps, a disk, and a plain band: uint8 [side, side, 3]."""
    y, x = np.mgrid[:side, :side]
    pixels = np.stack([x * 5 + y, y * 3 + 40, (x + 2 * y) * 2], -1) % 256
    disk = (x - side // 2) ** 2 + (y - side // 3) ** 2 < (side // 4) ** 2
    pixels[disk] = pixels[disk] // 4 + [150, 30, 0]
    pixels[: side // 8] = 90
    return pixels.astype(np.uint8)


def draw_grain(side: int) -> np.ndarray:
    """The drawn image with structure at the length of a pixel too."""
    grain = np.random.default_rng(0).integers(0, 64, (side, side, 3))
    return (draw_image(side) * 0.75 + grain).astype(np.uint8)


def corrupt_unsaved(image: np.ndarray, name: str, severity: int, seed: int = SEED) -> np.ndarray:
    """As the authors' functions return it: without JPEG."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return truncate_pixels(CORRUPTIONS[name](image, severity, rng))


def sample_pixels(image: np.ndarray) -> list[int]:
    """24 values of [224, 224, 3], of all channels."""
    return [int(value) for value in image[ROWS, COLUMNS, (ROWS + COLUMNS) % 3].ravel()]


def read_samples() -> dict[tuple[str, int], list[int]]:
    """(corruption, severity) -> `sample_pixels` of what the authors' packages make."""
    with SAMPLES.open(encoding="ascii", newline="") as file:
        return {(row[0], int(row[1])): [int(n) for n in row[2:]] for row in csv.reader(file)}
