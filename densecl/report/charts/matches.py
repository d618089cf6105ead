"""Picture of patch matches: pairs of views with lines from patches to their matches."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densecl.pages.templates import encode_thumbnail

MAX_LINES = 12  # per pair; more lines could not be distinguished
VIEW_PX, GAP_PX, COLUMNS = 160, 20, 3  # px of a view, px between the two, pairs side by side
WEBP_QUALITY = 80


@dataclass(frozen=True)
class MatchLine:
    """Line from a patch of the first view to its match in the second, in px of the drawing."""

    x1: float
    y1: float
    x2: float
    y2: float
    is_correct: bool


@dataclass(frozen=True)
class MatchedViews:
    x: int
    y: int
    first: str  # data URI of a WebP
    second: str
    lines: tuple[MatchLine, ...]


@dataclass(frozen=True)
class MatchPicture:
    mode: str
    pairs: tuple[MatchedViews, ...]
    size: tuple[int, int]  # px
    alt: str
    caption: str
    view_px: int = VIEW_PX
    gap_px: int = GAP_PX


def build_match_picture(mode: str, path: Path) -> MatchPicture:
    """Draw the matches in `matches.safetensors` of one training run; a match within one patch of
    the true place counts as correct.
    """
    from safetensors.numpy import load_file

    tensors = load_file(path)
    grid_side = round(tensors["match"].shape[1] ** 0.5)
    correct = _is_near(tensors["match"], tensors["truth"], grid_side)
    count = len(tensors["first"])
    pairs = tuple(_build_pair(tensors, correct, n, grid_side) for n in range(count))
    share = correct[tensors["visible"] > 0].mean() if tensors["visible"].any() else float("nan")
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
    size = (
        columns * (2 * VIEW_PX + 2 * GAP_PX) - GAP_PX,
        -(-count // columns) * (VIEW_PX + GAP_PX) - GAP_PX,
    )
    return MatchPicture(mode, pairs, size, alt, caption)


def _build_pair(
    tensors: dict[str, np.ndarray], correct: np.ndarray, n: int, grid_side: int
) -> MatchedViews:
    row, column = divmod(n, COLUMNS)
    visible = np.flatnonzero(tensors["visible"][n])
    patches = visible[:: max(1, -(-len(visible) // MAX_LINES))]
    lines = []
    for patch, match in zip(patches, tensors["match"][n][patches], strict=True):
        # Middles of the two patches, px of the drawn views.
        (y1, x1), (y2, x2) = (
            [round((i + 0.5) * VIEW_PX / grid_side, 1) for i in divmod(int(p), grid_side)]
            for p in (patch, match)
        )
        lines.append(MatchLine(x1, y1, x2 + VIEW_PX + GAP_PX / 2, y2, bool(correct[n, patch])))
    first, second = (_encode_webp(tensors[view][n]) for view in ("first", "second"))
    x, y = column * (2 * VIEW_PX + 2 * GAP_PX), row * (VIEW_PX + GAP_PX)
    return MatchedViews(x, y, first, second, tuple(lines))


def _encode_webp(view: np.ndarray) -> str:
    """[3, H, W] uint8 as a data URI, no larger than it is drawn."""
    from PIL import Image

    image = Image.fromarray(view.transpose(1, 2, 0))
    return encode_thumbnail(image, VIEW_PX, "WEBP", quality=WEBP_QUALITY, method=4)


def _is_near(match: np.ndarray, truth: np.ndarray, grid_side: int) -> np.ndarray:
    """Bool [P, N]: True for the same patch or a neighbour."""
    rows, columns = (
        abs(m - t) for m, t in zip(divmod(match, grid_side), divmod(truth, grid_side), strict=True)
    )
    return np.asarray((rows <= 1) & (columns <= 1))
