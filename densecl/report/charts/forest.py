"""The forest plot: differences of all pairs of modes on all datasets and claims at a glance."""

from typing import TYPE_CHECKING, NamedTuple

from densecl.analysis.claims import Pair, list_claims
from densecl.analysis.comparison import get_significance
from densecl.analysis.results import SHIFTED_MEAN, Comparison, MetricRow
from densecl.pages.formatting import capitalize_first, clip_text
from densecl.report.charts.mode_styles import COLOURS, MARKERS
from densecl.report.charts.svg import INK, PAPER, RULE, Chart, draw_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHAPES = {"o": "circles", "s": "squares", "^": "triangles", "D": "diamonds"}
PAIR_STEP = 0.24  # between the pairs of one place, of the distance between places


class _Style(NamedTuple):
    colour: str
    marker: str


def _get_style(pair: Pair) -> _Style:
    """That of the mode beside none; dense beside global has one of its own."""
    if pair[1] == "none":
        return _Style(COLOURS[pair[0]], MARKERS[pair[0]])
    return _Style(INK, "D")


def list_places(comparison: Comparison) -> dict[str, str]:
    """Place -> label: the datasets, their mean, and the claims that probes measure."""
    return {
        **{name: clip_text(title, 22) for name, title in comparison.plan.titles.items()},
        **({SHIFTED_MEAN: "mean of shifted"} if comparison.shifted_sets else {}),
        **{
            claim.place: clip_text(f"{claim.name} (probe)", 22)
            for claim in list_claims(comparison)
            if claim.probe and claim.probe in comparison.plan.probes
        },
    }


def draw_forest(comparison: Comparison) -> Chart | None:
    """Differences with plain intervals (bars) and simultaneous ones (thin lines), one row per
    place; None without data.
    """
    pairs, places = comparison.mode_pairs, list_places(comparison)
    rows = {
        (place, pair): row
        for place in places
        for pair in pairs
        if (row := comparison.get_difference(place, *pair))
    }
    if not rows:
        return None
    reach = max(abs(end or 0) for row in rows.values() for end in (row.low, row.high))
    limit = max(1.0, 110 * reach)  # simultaneous intervals may be several times as wide
    order = list(places)

    def draw_axes(axes: "Axes") -> None:
        for place in places:
            for number, pair in enumerate(pairs):
                y = order.index(place) + PAIR_STEP * (number - (len(pairs) - 1) / 2)
                _draw_difference(axes, y, rows.get((place, pair)), comparison, pair)
        axes.axvline(0, color=INK, linewidth=1)
        after = len(comparison.plan.datasets)  # the mean's place, if it has one
        for y in {after - 0.5, after + 0.5} if comparison.shifted_sets else ():
            axes.axhline(y, color=RULE, linewidth=1)
        axes.grid(visible=False, axis="y")
        axes.set(
            yticks=range(len(order)),
            yticklabels=list(places.values()),
            ylim=(len(order) - 0.4, -0.6),
            xlim=(-limit, limit),
            xlabel="difference, points",
        )

    values = [
        f"{' − '.join(pair)} on {places[place]} {100 * (row.value or 0):+.1f}"
        for (place, pair), row in rows.items()
    ]
    legend = ", ".join(f"{SHAPES[_get_style(pair).marker]}: {' − '.join(pair)}" for pair in pairs)
    level = round(100 * comparison.plan.values.confidence)
    return draw_chart(
        "forest",
        "Differences at a glance",
        (4.6, 0.8 + (0.22 + 0.12 * len(pairs)) * len(order)),
        "Differences in points: " + ", ".join(values),
        f"{capitalize_first(legend)}. Right of the line: the first mode is better. Bars are "
        f"{level} % intervals of each number; thin lines are simultaneous ones of their family, "
        "and may go on beyond the edge. Filled: the thin line leaves out 0.",
        draw_axes,
    )


def _draw_difference(
    axes: "Axes", y: float, plain: MetricRow | None, comparison: Comparison, pair: Pair
) -> None:
    """The plain interval as a bar and the simultaneous one, where there is a test, as a line."""
    if plain is None or plain.value is None:
        text = f" {' − '.join(pair)}: no value"
        axes.annotate(text, (0, y), color=INK, fontsize=7, ha="left", va="center")
        return
    colour, marker = _get_style(pair)
    metric = f"difference_to_{pair[1]}_simultaneous"
    simultaneous = comparison.get_row(plain.dataset, pair[0], metric)
    for row, width in ((simultaneous, 0.8), (plain, 2.6)):
        if row:
            ends = [100 * (row.low or 0), 100 * (row.high or 0)]
            axes.plot(ends, [y, y], color=colour, linewidth=width, solid_capstyle="round")
    significant = get_significance(comparison, plain.dataset, *pair) != 0
    axes.plot(
        100 * plain.value,
        y,
        marker,
        markersize=7,
        color=colour,
        markeredgewidth=1.6,
        markerfacecolor=colour if significant else PAPER,
    )
