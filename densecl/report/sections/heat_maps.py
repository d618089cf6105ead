"""Heat maps of a probe whose curves share their strengths: corruption by severity, one map per mode
and per difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from densecl.analysis.probe_results import format_measure_place
from densecl.analysis.results import Comparison
from densecl.pages.formatting import format_percent, format_points
from densecl.report.charts.probe_curves import list_curves
from densecl.report.formatting import Heat, TableCell, TableData, list_modes

PROBES = ("corruptions",)  # whose curves are too many for a chart each


@dataclass(frozen=True)
class HeatMap:
    title: str
    mode: str  # whose colour it has; "" for a difference
    table: TableData


def build_heat_maps(comparison: Comparison, probe: str) -> list[HeatMap]:
    """Scores of each mode, then the differences; [] without curves."""
    curves = list_curves(comparison, probe)
    strengths = sorted({s for measures in curves.values() for s in measures.values()})
    if not curves:
        return []
    names = {
        (curve, strength): name
        for curve, measures in curves.items()
        for name, strength in measures.items()
    }

    def build_table(build_cell: Callable[[str], TableCell]) -> TableData:
        rows = tuple(
            (
                curve,
                "",
                tuple(
                    build_cell(format_measure_place(probe, names[curve, s]))
                    if (curve, s) in names
                    else TableCell("–")
                    for s in strengths
                ),
            )
            for curve in curves
        )
        return TableData((("", tuple(f"{s:g}" for s in strengths)),), rows)

    places = [format_measure_place(probe, name) for name in names.values()]
    rows = [comparison.get_difference(p, a, b) for p in places for a, b in comparison.mode_pairs]
    widest = max((abs(row.value or 0.0) for row in rows if row), default=0.0) or 1.0
    scores = [
        HeatMap(f"{mode}, %", mode, build_table(partial(_build_score, comparison, mode)))
        for mode in list_modes(comparison)
    ]
    differences = [
        HeatMap(
            f"{a} − {b}, points",
            "",
            build_table(partial(_build_difference, comparison, (a, b), widest)),
        )
        for a, b in comparison.mode_pairs
    ]
    return [*scores, *differences]


def _build_score(comparison: Comparison, mode: str, place: str) -> TableCell:
    row = comparison.get_score(place, mode)
    if row is None or row.value is None:
        return TableCell("–")
    return TableCell(format_percent(row.value), heat=Heat(mode, min(1.0, max(0.0, row.value))))


def _build_difference(
    comparison: Comparison, pair: tuple[str, str], widest: float, place: str
) -> TableCell:
    """In the colour of the mode that is ahead."""
    row = comparison.get_difference(place, *pair)
    if row is None or row.value is None:
        return TableCell("–")
    ahead = pair[0] if row.value > 0 else pair[1]
    return TableCell(format_points(row.value), heat=Heat(ahead, abs(row.value) / widest))
