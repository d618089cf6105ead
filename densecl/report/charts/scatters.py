"""Charts of one dataset: accuracy against that of its control, and accuracy by confidence."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from densecl.analysis.claims import is_at_chance
from densecl.analysis.results import BASELINE, Comparison
from densecl.evaluation import effective_robustness
from densecl.pages.formatting import format_percent
from densecl.report.charts.mode_styles import style_modes
from densecl.report.charts.svg import INK, PAPER, Chart, draw_chart
from densecl.report.formatting import list_modes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHART_SIZE = (3.6, 3.0)  # inches
MIN_SPAN = 0.08  # of an axis: less would make much of little
MARKER_SIZES = {"none": 11, "global": 9}  # so that points that coincide are all seen
SMALL_MARKER = 7  # of the other modes
BINS = 15  # of equal width, as the calibration error's
MIN_BIN_IMAGES = 10  # images of a bin that is drawn


def draw_control_charts(comparison: Comparison) -> list[Chart]:
    """One chart per shifted dataset, one point per model; the published line where it applies."""
    return [chart for s in comparison.shifted_sets if (chart := _draw_control_chart(comparison, s))]


def has_published_fit(comparison: Comparison, *datasets: str) -> bool:
    """True if the published line applies to any of the datasets (default: all shifted ones)."""
    records = (
        r
        for s in datasets or comparison.shifted_sets
        for m in list_modes(comparison)
        for r in comparison.cells[s, m].records.values()
    )
    return any(record.effective_robustness is not None for record in records)


def _draw_control_chart(comparison: Comparison, dataset: str) -> Chart | None:
    cells = {m: comparison.cells[dataset, m] for m in list_modes(comparison)}
    points = [
        (mode, record.control.top1, record.top1)
        for mode, cell in cells.items()
        for record in cell.records.values()
        if record.control
    ]
    if not points:
        return None
    x_span, y_span = _compute_spans([x for _, x, _ in points], [y for _, _, y in points])
    fit_line = (
        list(_iter_published_fit(comparison.plan.protocols[dataset], np.linspace(*x_span, 80)))
        if has_published_fit(comparison, dataset)
        else []
    )
    reference_mode = BASELINE if any(mode == BASELINE for mode, _, _ in points) else points[0][0]
    drop = float(np.mean([x - y for mode, x, y in points if mode == reference_mode]))

    styles = style_modes(comparison.plan.modes)
    sizes = {mode: MARKER_SIZES.get(mode, SMALL_MARKER) for mode in styles}

    def draw_axes(axes: "Axes") -> None:
        ends = np.array(x_span)
        if is_compared:
            line = 100 * (ends - drop)
            axes.plot(100 * ends, line, color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        if fit_line:
            axes.plot(*100 * np.array(fit_line).T, color=INK, linewidth=1.2)
        for mode, x, y in sorted(points, key=lambda point: -sizes[point[0]]):
            axes.plot(
                100 * x,
                100 * y,
                styles[mode].marker,
                color=styles[mode].colour,
                markersize=sizes[mode],
                markeredgecolor=PAPER,
            )
        axes.set(
            xlim=tuple(100 * x for x in x_span),
            ylim=tuple(100 * y for y in y_span),
            xlabel="top-1 on the control, %",
            ylabel="top-1 on the dataset, %",
        )

    summary = "; ".join(
        f"{mode} {format_percent(x)} on the control and {format_percent(y)} on the dataset"
        for mode, x, y in points
    )
    missing = [m for m, cell in cells.items() if not cell.records]
    is_compared, title = len(cells) > 1, comparison.plan.titles[dataset]
    caption = f"Dotted: the same drop as {reference_mode}." * is_compared
    caption += _describe_fit_line(fit_line, y_span)
    caption += f" Not here: {', '.join(missing)}." if missing else ""
    guessed = [m for m in cells if is_at_chance(comparison, dataset, [m])]
    caption += f" At chance: {', '.join(guessed)}." if guessed else ""
    return draw_chart(
        f"control {dataset}", title, CHART_SIZE, f"{title}: {summary}", caption, draw_axes
    )


def _describe_fit_line(fit_line: Sequence[tuple[float, float]], y_span: tuple[float, float]) -> str:
    if not fit_line:
        return ""
    if any(y_span[0] <= y <= y_span[1] for _, y in fit_line):
        return " Solid: standard models, as published."
    return (
        f" Standard models, as published, lie "
        f"{'below' if fit_line[0][1] < y_span[0] else 'above'} the picture."
    )


def _compute_spans(
    x_values: Sequence[float], y_values: Sequence[float]
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Axes of equal length with a margin, so that a constant drop is a line at 45 degrees."""
    half_span = (
        min(
            1.0,
            max(MIN_SPAN, *(1.4 * (max(values) - min(values)) for values in (x_values, y_values))),
        )
        / 2
    )
    x, y = (
        min(max((max(values) + min(values)) / 2, half_span), 1 - half_span)
        for values in (x_values, y_values)
    )
    return (x - half_span, x + half_span), (y - half_span, y + half_span)


def _iter_published_fit(protocol: str, grid: np.ndarray) -> Iterator[tuple[float, float]]:
    for control_top1 in grid:
        try:
            yield (
                float(control_top1),
                effective_robustness.compute_expected_accuracy(protocol, float(control_top1)),
            )
        except (ValueError, ZeroDivisionError):
            continue


def draw_reliability(comparison: Comparison, dataset: str) -> Chart | None:
    """Accuracy by confidence: the mean of both per bin, over all seeds of a mode."""
    modes = [m for m in list_modes(comparison) if comparison.cells[dataset, m].rows]
    lines = {m: line for m in modes if len(line := _compute_bins(comparison, dataset, m))}
    if not lines:
        return None
    styles = style_modes(comparison.plan.modes)

    def draw_axes(axes: "Axes") -> None:
        axes.plot([0, 100], [0, 100], color=INK, linewidth=0.9, linestyle=(0, (1, 2)))
        for mode, line in lines.items():
            axes.plot(
                *100 * line.T,
                marker=styles[mode].marker,
                color=styles[mode].colour,
                markersize=5,
                linewidth=1.6,
            )
        axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="confidence, %", ylabel="right, %")

    errors = ", ".join(
        f"{m} {format_percent(row.value)}"
        for m in modes
        if (row := comparison.get_row(dataset, m, "ece"))
    )
    caption = (
        f"On the dotted line confidence is right; below it the model is too sure. Calibration "
        f"error in points: {errors}. "
        f"Bins of fewer than {MIN_BIN_IMAGES} images are left out."
    )
    ends = "; ".join(
        f"{m} right {100 * line[-1, 1]:.0f} % at {100 * line[-1, 0]:.0f} % confidence"
        for m, line in lines.items()
    )
    alt = f"Reliability on {comparison.plan.titles[dataset]}: {ends}"
    return draw_chart(f"reliability {dataset}", "Calibration", CHART_SIZE, alt, caption, draw_axes)


def _compute_bins(comparison: Comparison, dataset: str, mode: str) -> np.ndarray:
    """[bins, 2]: mean confidence and accuracy, as fractions."""
    frames = comparison.cells[dataset, mode].rows
    rows = pd.concat([frames[s][["confidence", "correct"]].astype(float) for s in sorted(frames)])
    bins = rows.groupby((rows["confidence"] * BINS).astype(int).clip(upper=BINS - 1).to_numpy())
    return bins.mean()[bins.size() >= MIN_BIN_IMAGES].to_numpy()
