"""Charts of a sweep: the best so far, the expected best of n trials, and scores by rate."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from densecl.pages.formatting import format_percent
from densecl.report.charts.mode_styles import COLOURS, MARKERS
from densecl.report.charts.svg import Chart, draw_chart
from pipelines.studies.sweep.results import ModeTrials

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (5.2, 3.4)  # inches
RATE = "train.learning_rate"


def draw_charts(modes: Sequence[ModeTrials], is_random: bool) -> list[Chart]:
    """The charts that these trials allow: an expected maximum is one of independent trials."""
    charts = [_draw_best_so_far(modes)]
    if is_random and len(modes[0].results) > 2:
        charts.append(_draw_expected_maxima(modes))
    if any(RATE in result.values for trials in modes for result in trials.results):
        charts.append(_draw_rates(modes))
    return charts


def _draw_best_so_far(modes: Sequence[ModeTrials]) -> Chart:
    def draw(axes: "Axes") -> None:
        for trials in modes:
            best = [100 * score for score in trials.best_so_far]
            scores = [100 * result.top1_select for result in trials.results]
            axes.step(
                range(1, len(best) + 1), best, where="post", color=COLOURS[trials.mode], linewidth=2
            )
            axes.plot(
                range(1, len(best) + 1),
                scores,
                MARKERS[trials.mode],
                color=COLOURS[trials.mode],
                markersize=4,
                alpha=0.55,
            )
        axes.locator_params("x", integer=True)
        axes.set_xlabel("trial")
        axes.set_ylabel("top-1 in %")

    ends = "; ".join(f"{t.mode} {format_percent(t.best_so_far[-1])} %" for t in modes)
    return draw_chart(
        "sweep-best",
        "Best so far",
        SIZE,
        f"Best top-1 on the images that choose, after each trial; at the end {ends}",
        "Lines: the best top-1 up to each trial. Markers: each trial. The first has the values of "
        "the params.",
        draw,
    )


def _draw_expected_maxima(modes: Sequence[ModeTrials]) -> Chart:
    def draw(axes: "Axes") -> None:
        for trials in modes:
            maxima = trials.expected_maxima
            counts = [maximum.trials for maximum in maxima]
            means = [100 * maximum.mean for maximum in maxima]
            spreads = [100 * maximum.deviation for maximum in maxima]
            axes.fill_between(
                counts,
                [mean - spread for mean, spread in zip(means, spreads, strict=True)],
                [mean + spread for mean, spread in zip(means, spreads, strict=True)],
                color=COLOURS[trials.mode],
                alpha=0.14,
                linewidth=0,
            )
            axes.plot(
                counts, means, color=COLOURS[trials.mode], marker=MARKERS[trials.mode], markersize=4
            )
        axes.locator_params("x", integer=True)
        axes.set_xlabel("trials with drawn values")
        axes.set_ylabel("expected best top-1 in %")

    ends = "; ".join(
        f"{t.mode} {format_percent(t.expected_maxima[0].mean)} % of one trial, "
        f"{format_percent(t.expected_maxima[-1].mean)} % of {t.expected_maxima[-1].trials}"
        for t in modes
    )
    return draw_chart(
        "sweep-expected",
        "Expected best of n trials",
        SIZE,
        f"Expected best top-1 on the images that choose: {ends}",
        "Mean of the best of n trials drawn anew from these (Dodge et al. 2019), and one standard "
        "deviation of it. A mode that needs many trials is one that is hard to tune.",
        draw,
    )


def _draw_rates(modes: Sequence[ModeTrials]) -> Chart:
    def draw(axes: "Axes") -> None:
        for trials in modes:
            drawn = [result for result in trials.results if RATE in result.values]
            axes.plot(
                [_read_rate(result.values[RATE]) for result in drawn],
                [100 * result.top1_select for result in drawn],
                MARKERS[trials.mode],
                color=COLOURS[trials.mode],
                markersize=6,
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")  # matplotlib's own is a formula
        axes.minorticks_off()
        axes.set_xlabel("learning rate")
        axes.set_ylabel("top-1 in %")

    return draw_chart(
        "sweep-rates",
        "Scores by learning rate",
        SIZE,
        "Top-1 of each trial on the images that choose, by its learning rate",
        "Each trial; the other values of the trials differ too. A best at the edge asks for a "
        "wider range.",
        draw,
    )


def _read_rate(value: object) -> float:
    return value if isinstance(value, float) else 0.0
