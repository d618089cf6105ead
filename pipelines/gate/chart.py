"""The gate's criteria as one picture: each value in its interval, with the bound it was held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from densecl.datasets.storage.filenames import to_printable
from densecl.report.charts.svg import COLOURS, INK, PAPER, render_svg
from pipelines.schemas import Criterion, GateVerdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PASSED_COLOUR, FAILED_COLOUR = (
    COLOURS["dense"],
    COLOURS["global"],
)  # the page calls them held and failed; shapes say it too


def render_forest(verdict: GateVerdict) -> tuple[str, str]:
    """An <svg> and what it shows in words; two empty texts where no criterion has a value."""
    if all(criterion.value is None for criterion in verdict.criteria):
        return "", ""
    alt_text = to_printable(
        "; ".join(f"{format_label(criterion)}: {criterion.said}" for criterion in verdict.criteria)
    )
    size = (4.9, 0.8 + 0.42 * len(verdict.criteria))
    return render_svg("gate", size, alt_text, lambda axes: _draw_criteria(axes, verdict)), alt_text


def format_label(criterion: Criterion) -> str:
    return f"{criterion.dataset}, {criterion.name}"


def _draw_criteria(axes: Axes, verdict: GateVerdict) -> None:
    for y, criterion in enumerate(verdict.criteria):
        _draw_bound(axes, y, 100 * criterion.bound)
        if criterion.value is None or criterion.low is None or criterion.high is None:
            axes.annotate(
                "no value",
                (100 * criterion.bound, y),
                (6, 0),
                textcoords="offset points",
                color=INK,
                fontsize=8,
                va="center",
            )
            continue
        colour, marker = (PASSED_COLOUR, "o") if criterion.passed else (FAILED_COLOUR, "X")
        axes.plot(
            [100 * criterion.low, 100 * criterion.high],
            [y, y],
            color=colour,
            linewidth=2.2,
            solid_capstyle="round",
        )
        axes.plot(
            100 * criterion.value,
            y,
            marker,
            markersize=9,
            color=colour,
            markeredgecolor=PAPER,
            markeredgewidth=1,
        )
    if verdict.champion is not None:
        axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(
        range(len(verdict.criteria)), [format_label(criterion) for criterion in verdict.criteria]
    )
    axes.set_ylim(len(verdict.criteria) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(
        "top-1 in %" if verdict.champion is None else "points of top-1 above the champion"
    )


def _draw_bound(axes: Axes, y: int, bound: float) -> None:
    """A bar across the row, as high as a row."""
    axes.plot(
        [bound, bound], [y - 0.36, y + 0.36], color=INK, linewidth=1.6, linestyle=(0, (2, 1.2))
    )
