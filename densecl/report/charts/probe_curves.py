"""Curves of probes: a score over the strength of what is done to the images, or over the blocks of
the network, with one line and band per mode.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from densecl.analysis.claims import get_chance
from densecl.analysis.probe_results import find_measure, format_measure_place, list_measures
from densecl.analysis.results import Comparison
from densecl.config.params import CONTROL_SET
from densecl.pages.formatting import capitalize_first
from densecl.report.charts.mode_styles import ModeStyle, style_modes
from densecl.report.charts.svg import INK, Chart, draw_chart
from densecl.report.formatting import list_modes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHART_SIZE = (3.6, 2.5)  # inches
# What the strength of a probe's curves is; that of viewpoint differs by the warp.
STRENGTHS = {
    "rotation": "degrees",
    "scale": "share of the size that is lost",
    "translation": "share of the side",
    "perspective": "distortion",
    "pasted": "share of the area",
    "occlusion": "share of the patches",
    "segmentation": "block",
    "correspondence": "block",
    "knn": "block",
    "linear": "block",
    "corruptions": "severity",
}


# Whose curves begin at the unaltered validation images.
ACCURACY_PROBES = ("occlusion", "viewpoint")
# Measures `<curve>/<name>` that are drawn as a level to exceed, without looking at the images.
SAME_INDEX = "same-index"


class CurvePoint(NamedTuple):
    """A mean over seeds and images with its interval; fractions."""

    strength: float
    value: float
    low: float
    high: float
    chance: float | None


def list_curves(comparison: Comparison, probe: str) -> dict[str, dict[str, float]]:
    """Curve -> its measures with their strengths, in ascending order; of two points or more."""
    curves: dict[str, dict[str, float]] = {}
    for name in list_measures(comparison, probe):
        measure = find_measure(comparison, probe, name)
        if measure and measure.curve and measure.strength is not None:
            curves.setdefault(measure.curve, {})[name] = measure.strength
    return {
        curve: dict(sorted(measures.items(), key=lambda item: item[1]))
        for curve, measures in curves.items()
        if len(set(measures.values())) > 1
    }


def collect_points(
    comparison: Comparison, probe: str, measures: dict[str, float], mode: str
) -> list[CurvePoint]:
    """The points of a mode's line, from the unaltered images on where it is one of accuracies;
    measures without a value are left out.
    """
    points = _collect_start(comparison, probe, measures, mode)
    for name, strength in measures.items():
        row = comparison.get_score(format_measure_place(probe, name), mode)
        measure = find_measure(comparison, probe, name)
        if measure and row and row.value is not None:
            low, high = (row.value if end is None else end for end in (row.low, row.high))
            points.append(CurvePoint(strength, row.value, low, high, measure.chance))
    return points


def _collect_start(
    comparison: Comparison, probe: str, measures: dict[str, float], mode: str
) -> list[CurvePoint]:
    """Strength 0 of a curve of accuracies: top-1 of the same validation images; [] of others."""
    found = [find_measure(comparison, probe, name) for name in measures]
    is_accuracy = all(m and m.curve and not m.curve.endswith("/consistency") for m in found)
    row = comparison.get_row(CONTROL_SET, mode, "top1")
    if probe not in ACCURACY_PROBES or not is_accuracy or row is None or row.value is None:
        return []
    first = comparison.get_score(format_measure_place(probe, next(iter(measures))), mode)
    if first is None or (first.images, first.seeds) != (row.images, row.seeds):
        return []
    low, high = (row.value if end is None else end for end in (row.low, row.high))
    return [CurvePoint(0.0, row.value, low, high, get_chance(comparison, CONTROL_SET))]


def draw_probe_curves(comparison: Comparison, probe: str) -> list[Chart]:
    """A chart per curve of the probe."""
    charts, styles = [], style_modes(comparison.plan.modes)
    for curve, measures in list_curves(comparison, probe).items():
        lines = {
            mode: points
            for mode in list_modes(comparison)
            if (points := collect_points(comparison, probe, measures, mode))
        }
        if lines:
            level = find_measure(comparison, probe, f"{curve}/{SAME_INDEX}")
            found = [find_measure(comparison, probe, name) for name in measures]
            note = "; ".join(dict.fromkeys(m.note for m in found if m and m.note))
            same_index = level.value if level else None
            charts.append(_draw_curve(probe, curve, lines, styles, same_index, note))
    return charts


def _draw_curve(
    probe: str,
    curve: str,
    lines: dict[str, list[CurvePoint]],
    styles: dict[str, ModeStyle],
    same_index: float | None,
    note: str,
) -> Chart:
    x_label = STRENGTHS.get(curve.partition("/")[0]) or STRENGTHS.get(probe, "strength")
    chance = [point for point in next(iter(lines.values())) if point.chance is not None]

    ticks = sorted({point.strength for points in lines.values() for point in points})

    def draw_axes(axes: "Axes") -> None:
        for mode, points in lines.items():
            x = [point.strength for point in points]
            low, value, high = (
                100 * np.array([getattr(point, name) for point in points])
                for name in ("low", "value", "high")
            )
            colour, marker = styles[mode][:2]
            axes.fill_between(x, low, high, color=colour, alpha=0.14, linewidth=0)
            axes.plot(x, value, marker=marker, color=colour, markersize=5, linewidth=1.7)
        if chance:
            axes.plot(
                [point.strength for point in chance],
                [100 * (point.chance or 0.0) for point in chance],
                color=INK,
                linewidth=1,
                linestyle=(0, (1, 2)),
            )
        if same_index is not None:
            axes.axhline(100 * same_index, color=INK, linewidth=1, linestyle=(0, (4, 2)))
        axes.set(xlabel=x_label, ylabel="%", xticks=ticks, xticklabels=[f"{t:g}" for t in ticks])

    ends = "; ".join(
        f"{mode} from {100 * points[0].value:.1f} to {100 * points[-1].value:.1f}"
        for mode, points in lines.items()
    )
    alt = f"{probe}, {curve}, % by {x_label} from {ticks[0]:g} to {ticks[-1]:g}: {ends}"
    caption = " ".join(
        ["Dotted: chance."] * bool(chance)
        + ["Dashed: the same index, which knows position only."] * (same_index is not None)
        + [f"{capitalize_first(note)}."] * bool(note)
    )
    return draw_chart(f"probe {probe} {curve}", curve, CHART_SIZE, alt, caption, draw_axes)
