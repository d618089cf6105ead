"""The gate's criteria as one picture: each value in its interval, with the bound it was held to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from densecl.datasets.storage.filenames import shown
from densecl.report.charts.svg import COLOURS, INK, PAPER, svg
from pipelines.schemas import Criterion, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELD, FAILED = (
    COLOURS["dense"],
    COLOURS["global"],
)  # the page calls them held and failed; shapes say it too


def forest(verdict: Verdict) -> tuple[str, str]:
    """An <svg> and what it shows in words; two empty texts where no criterion has a value."""
    if all(each.value is None for each in verdict.criteria):
        return "", ""
    spoken = shown("; ".join(f"{label(each)}: {each.said}" for each in verdict.criteria))
    size = (4.9, 0.8 + 0.42 * len(verdict.criteria))
    return svg("gate", size, spoken, lambda axes: _draw(axes, verdict)), spoken


def label(criterion: Criterion) -> str:
    return f"{criterion.dataset}, {criterion.name}"


def _draw(axes: Axes, verdict: Verdict) -> None:
    for y, each in enumerate(verdict.criteria):
        _bound(axes, y, 100 * each.bound)
        if each.value is None or each.low is None or each.high is None:
            axes.annotate(
                "no value",
                (100 * each.bound, y),
                (6, 0),
                textcoords="offset points",
                color=INK,
                fontsize=8,
                va="center",
            )
            continue
        colour, marker = (HELD, "o") if each.passed else (FAILED, "X")
        axes.plot(
            [100 * each.low, 100 * each.high],
            [y, y],
            color=colour,
            linewidth=2.2,
            solid_capstyle="round",
        )
        axes.plot(
            100 * each.value,
            y,
            marker,
            markersize=9,
            color=colour,
            markeredgecolor=PAPER,
            markeredgewidth=1,
        )
    if verdict.champion is not None:
        axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(verdict.criteria)), [label(each) for each in verdict.criteria])
    axes.set_ylim(len(verdict.criteria) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(
        "top-1 in %" if verdict.champion is None else "points of top-1 above the champion"
    )


def _bound(axes: Axes, y: int, bound: float) -> None:
    """A bar across the row, as high as a row."""
    axes.plot(
        [bound, bound], [y - 0.36, y + 0.36], color=INK, linewidth=1.6, linestyle=(0, (2, 1.2))
    )
