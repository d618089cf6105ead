"""The picture of matched patches: pairs of views with lines from patches to their matches."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

RIGHT, WRONG = "#009e73", "#d55e00"  # Okabe and Ito's green and vermilion; wrong ones are dashed too
LINES = 12  # at most, a pair: more cannot be told apart


@dataclass(frozen=True)
class Picture:
    mode: str
    source: str  # data URI of a PNG
    alt: str
    caption: str


def picture(mode: str, path: Path) -> Picture:
    """Matches of one training as its `matches.safetensors` holds them; right: within one patch of the true place."""
    from matplotlib.figure import Figure
    from matplotlib.patches import ConnectionPatch
    from safetensors.numpy import load_file

    drawn = load_file(path)
    side = round(drawn["match"].shape[1] ** 0.5)
    right = _near(drawn["match"], drawn["truth"], side)
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    count, shown = len(drawn["first"]), 0
    axes = figure.subplots(2, 2 * ((count + 1) // 2), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for pair in range(count):
        row, column = pair % 2, 2 * (pair // 2)
        left, other = axes[row, column], axes[row, column + 1]
        for axis, view in ((left, drawn["first"]), (other, drawn["second"])):
            axis.imshow(view[pair].transpose(1, 2, 0))
        patch = drawn["first"].shape[-1] / side
        seen = np.flatnonzero(drawn["visible"][pair])
        for n in seen[:: max(1, -(-len(seen) // LINES))]:
            good = bool(right[pair, n])
            shown += 1
            line = ConnectionPatch(
                _centre(int(drawn["match"][pair, n]), side, patch), _centre(int(n), side, patch), "data", "data",
                axesA=other, axesB=left, color=RIGHT if good else WRONG, linestyle="-" if good else (0, (3, 2)), linewidth=1.3,
            )  # fmt: skip
            figure.add_artist(line)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    share = right[drawn["visible"] > 0].mean() if drawn["visible"].any() else float("nan")
    alt = (
        f"{count} pairs of views of training images, mode {mode}; "
        f"{100 * share:.0f} % of the visible patches are matched within one patch."
    )
    caption = (
        f"{mode}: solid green lines end within one patch of the true place, dashed orange ones do not. "
        f"{shown} of the patches that both views show are drawn."
    )
    return Picture(mode, "data:image/png;base64," + base64.b64encode(file.getvalue()).decode(), alt, caption)


def _near(match: np.ndarray, truth: np.ndarray, side: int) -> np.ndarray:
    """[P, N] bool: same patch or a neighbour."""
    return np.maximum(np.abs(match // side - truth // side), np.abs(match % side - truth % side)) <= 1


def _centre(patch: int, side: int, pixels: float) -> tuple[float, float]:
    """(x, y) in pixels of imshow."""
    return (patch % side + 0.5) * pixels - 0.5, (patch // side + 0.5) * pixels - 0.5
