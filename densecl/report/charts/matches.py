"""The picture of matched patches: pairs of views with lines from patches to their matches."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

LINES = 12  # at most, a pair: more cannot be told apart
SIDE, GAP, COLUMNS = 160, 20, 3  # px of a view, px between the two, pairs side by side
QUALITY = 80


@dataclass(frozen=True)
class Line:
    """From a patch of the first view to its match in the second, px of the pair's drawing."""

    x1: float
    y1: float
    x2: float
    y2: float
    right: bool


@dataclass(frozen=True)
class Pair:
    x: int
    y: int
    first: str  # data URI of a WebP
    second: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Picture:
    mode: str
    pairs: tuple[Pair, ...]
    size: tuple[int, int]  # px
    alt: str
    caption: str
    side: int = SIDE
    gap: int = GAP


def picture(mode: str, path: Path) -> Picture:
    """Matches of one training as its `matches.safetensors` holds them; right: within one patch of
    the true place.
    """
    from safetensors.numpy import load_file

    drawn = load_file(path)
    side = round(drawn["match"].shape[1] ** 0.5)
    right = _near(drawn["match"], drawn["truth"], side)
    count = len(drawn["first"])
    pairs = tuple(_pair(drawn, right, n, side) for n in range(count))
    share = right[drawn["visible"] > 0].mean() if drawn["visible"].any() else float("nan")
    alt = (
        f"{count} pairs of views of training images, mode {mode}; "
        f"{100 * share:.0f} % of the visible patches are matched within one patch."
    )
    caption = (
        f"{mode}: solid green lines end within one patch of the true place, dashed purple ones do "
        f"not. "
        f"{sum(len(p.lines) for p in pairs)} of the patches that both views show are drawn. Look "
        f"for lines that keep to the object "
        "though it moved; lines that all run level match position."
    )
    columns = min(COLUMNS, count)
    size = (columns * (2 * SIDE + 2 * GAP) - GAP, -(-count // columns) * (SIDE + GAP) - GAP)
    return Picture(mode, pairs, size, alt, caption)


def _pair(drawn: dict[str, np.ndarray], right: np.ndarray, n: int, side: int) -> Pair:
    row, column = divmod(n, COLUMNS)
    patch = SIDE / side
    seen = np.flatnonzero(drawn["visible"][n])
    lines = tuple(
        _lines(seen[:: max(1, -(-len(seen) // LINES))], drawn["match"][n], right[n], side, patch)
    )
    views = [_webp(drawn[view][n]) for view in ("first", "second")]
    return Pair(column * (2 * SIDE + 2 * GAP), row * (SIDE + GAP), views[0], views[1], lines)


def _lines(
    patches: np.ndarray, match: np.ndarray, right: np.ndarray, side: int, patch: float
) -> Iterator[Line]:
    for n in patches:
        (x1, y1), (x2, y2) = (_centre(int(p), side, patch) for p in (n, match[n]))
        yield Line(
            round(x1, 1), round(y1, 1), round(x2 + SIDE + GAP / 2, 1), round(y2, 1), bool(right[n])
        )


def _webp(view: np.ndarray) -> str:
    """[3, H, W] uint8 as a data URI, no larger than it is drawn."""
    from PIL import Image

    image = Image.fromarray(view.transpose(1, 2, 0))
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _near(match: np.ndarray, truth: np.ndarray, side: int) -> np.ndarray:
    """[P, N] bool: same patch or a neighbour."""
    return (
        np.maximum(np.abs(match // side - truth // side), np.abs(match % side - truth % side)) <= 1
    )


def _centre(patch: int, side: int, pixels: float) -> tuple[float, float]:
    """(x, y) in px of the drawn view."""
    return (patch % side + 0.5) * pixels, (patch // side + 0.5) * pixels
