"""Charts of one set: accuracy beside its control's, and accuracy by confidence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from densecl.analysis.results import BASELINE, Comparison
from densecl.evaluation import effective_robustness
from densecl.report.charts.svg import COLOURS, INK, MARKERS, PAPER, Chart, svg
from densecl.report.formatting import modes_of, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (3.6, 3.0)  # inches
LEAST_SPAN = 0.08  # of an axis: less would make much of little
SIZES = {"none": 11, "global": 9, "dense": 7}  # so that points that coincide are all seen
BINS = 15  # of equal width, as the calibration error's
LEAST = 10  # images of a bin that is drawn

Point = tuple[str, float, float]  # mode, control, set: fractions


def against_control(found: Comparison) -> list[Chart]:
    """A chart a shifted set: a point a model; the published line where it holds."""
    return [chart for s in found.shifted if (chart := _of_set(found, s))]


def fitted(found: Comparison, *sets: str) -> bool:
    """Does the published line hold for any of the sets (all shifted ones where none is named)?"""
    records = (
        r
        for s in sets or found.shifted
        for m in modes_of(found)
        for r in found.cells[s, m].records.values()
    )
    return any(record.effective_robustness is not None for record in records)


def _of_set(found: Comparison, dataset: str) -> Chart | None:
    points = list(_points(found, dataset))
    if not points:
        return None
    across, up = _spans([x for _, x, _ in points], [y for _, _, y in points])
    line = (
        list(_published(found.plan.protocols[dataset], np.linspace(*across, 80)))
        if fitted(found, dataset)
        else []
    )
    reference = BASELINE if any(mode == BASELINE for mode, _, _ in points) else points[0][0]
    drop = float(np.mean([x - y for mode, x, y in points if mode == reference]))

    def draw(axes: Axes) -> None:
        ends = np.array(across)
        axes.plot(100 * ends, 100 * (ends - drop), color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        if line:
            axes.plot(*100 * np.array(line).T, color=INK, linewidth=1.2)
        for mode, x, y in sorted(points, key=lambda point: -SIZES[point[0]]):
            axes.plot(
                100 * x,
                100 * y,
                MARKERS[mode],
                color=COLOURS[mode],
                markersize=SIZES[mode],
                markeredgecolor=PAPER,
            )
        axes.set_xlim(100 * across[0], 100 * across[1])
        axes.set_ylim(100 * up[0], 100 * up[1])
        axes.set_xlabel("top-1 on the control, %")
        axes.set_ylabel("top-1 on the set, %")

    said = "; ".join(
        f"{mode} {percent(x)} on the control and {percent(y)} on the set" for mode, x, y in points
    )
    missing = [m for m in modes_of(found) if not found.cells[dataset, m].records]
    look = f"Dotted: the same drop as {reference}." + _of_line(line, up)
    look += f" Not here: {', '.join(missing)}." if missing else ""
    return Chart(
        dataset,
        svg(f"control {dataset}", SIZE, f"{dataset}: {said}", draw),
        f"{dataset}: {said}",
        look,
    )


def _of_line(line: Sequence[tuple[float, float]], up: tuple[float, float]) -> str:
    if not line:
        return ""
    if any(up[0] <= y <= up[1] for _, y in line):
        return " Solid: standard models, as published."
    return (
        f" Standard models, as published, lie "
        f"{'below' if line[0][1] < up[0] else 'above'} the picture."
    )


def _points(found: Comparison, dataset: str) -> Iterator[Point]:
    for mode in modes_of(found):
        for record in found.cells[dataset, mode].records.values():
            if record.control:
                yield mode, record.control.top1, record.top1


def _spans(
    across: Sequence[float], up: Sequence[float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Both axes equally long, with room around the points, so that an equal drop is a line at 45
    degrees.
    """
    half = (
        min(1.0, max(LEAST_SPAN, *(1.4 * (max(values) - min(values)) for values in (across, up))))
        / 2
    )
    x, y = (min(max((max(values) + min(values)) / 2, half), 1 - half) for values in (across, up))
    return (x - half, x + half), (y - half, y + half)


def _published(protocol: str, grid: np.ndarray) -> Iterator[tuple[float, float]]:
    for clean in grid:
        try:
            yield float(clean), effective_robustness.expected(protocol, float(clean))
        except (effective_robustness.NoFit, ValueError, ZeroDivisionError):
            continue


def reliability(found: Comparison, dataset: str) -> Chart | None:
    """Accuracy by confidence: the mean of both in each bin, all seeds of a mode together."""
    lines = {m: _bins(found, dataset, m) for m in modes_of(found) if found.cells[dataset, m].rows}
    if not any(len(line) for line in lines.values()):
        return None

    def draw(axes: Axes) -> None:
        axes.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        for mode, line in lines.items():
            if len(line):
                axes.plot(
                    *100 * line.T,
                    marker=MARKERS[mode],
                    color=COLOURS[mode],
                    markersize=5,
                    linewidth=1.6,
                )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("confidence, %")
        axes.set_ylabel("right, %")

    errors = ", ".join(
        f"{m} {percent(row.value)}" for m in lines if (row := found.get(dataset, m, "ece"))
    )
    look = (
        f"On the dotted line confidence is right; below it the model is too sure. Calibration "
        f"error in points: {errors}. "
        f"Bins of fewer than {LEAST} images are left out."
    )
    ends = "; ".join(
        f"{m} right {100 * line[-1, 1]:.0f} % at {100 * line[-1, 0]:.0f} % confidence"
        for m, line in lines.items()
        if len(line)
    )
    alt = f"Reliability on {dataset}: {ends}"
    return Chart("Calibration", svg(f"reliability {dataset}", SIZE, alt, draw), alt, look)


def _bins(found: Comparison, dataset: str, mode: str) -> np.ndarray:
    """[bins, 2]: mean confidence and accuracy, fractions."""
    frames = found.cells[dataset, mode].rows
    seeds = sorted(frames)
    p, right = (
        np.concatenate([frames[s][column].to_numpy(float) for s in seeds])
        for column in ("confidence", "correct")
    )
    which = np.minimum((p * BINS).astype(int), BINS - 1)
    kept = [which == b for b in range(BINS) if (which == b).sum() >= LEAST]
    return np.array([[p[k].mean(), right[k].mean()] for k in kept]).reshape(-1, 2)
