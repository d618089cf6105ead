"""Chart of the gate's criteria: each value with its interval and bound."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from densecl.datasets.storage.filenames import to_printable
from densecl.report.charts.mode_styles import COLOURS
from densecl.report.charts.svg import INK, PAPER, render_svg
from pipelines.schemas import Criterion, GateVerdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PASSED_COLOUR, FAILED_COLOUR = (
    COLOURS["dense"],
    COLOURS["global"],
)  # the page calls them held and failed; shapes say it too


def render_forest(verdict: GateVerdict) -> str:
    """An <svg> element with its text alternative: differences to champion and anchor, or the first
    champion's top-1.
    """
    criteria = [
        c
        for c in verdict.criteria
        if verdict.champion is None or c.name not in ("chance", "minimum")
    ]
    labels = [f"{verdict.titles.get(c.dataset, c.dataset)}, {c.name}" for c in criteria]
    alt_text = "; ".join(f"{n}: {c.said}" for n, c in zip(labels, criteria, strict=True))
    size = (4.9, 0.8 + 0.42 * len(criteria))
    is_difference = verdict.champion is not None
    return render_svg(
        "gate",
        size,
        to_printable(alt_text),
        lambda axes: _draw_criteria(axes, criteria, labels, is_difference),
    )


def _draw_criteria(
    axes: "Axes", criteria: Sequence[Criterion], labels: Sequence[str], is_difference: bool
) -> None:
    for y, criterion in enumerate(criteria):
        bound = 100 * criterion.bound
        axes.plot(  # a bar across the row, as high as a row
            [bound, bound], [y - 0.36, y + 0.36], color=INK, linewidth=1.6, linestyle=(0, (2, 1.2))
        )
        if criterion.value is None or criterion.low is None or criterion.high is None:
            axes.annotate(
                "no value",
                (bound, y),
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
    if is_difference:
        axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(range(len(criteria)), labels)
    axes.set_ylim(len(criteria) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(
        "points of top-1 above the champion or anchor" if is_difference else "top-1 in %"
    )
