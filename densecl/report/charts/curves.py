"""Training curves of all modes: one line per mode and seed, as small multiples grouped by
question.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from densecl.report.charts.mode_styles import ModeStyle, style_modes
from densecl.report.charts.panels import (
    OVERLAP_BINS,
    Panel,
    PanelGroup,
    Profile,
    build_panel_groups,
)
from densecl.report.charts.svg import INK, Chart, draw_chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE_STYLES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)))  # solid, dashed, dotted
UNIT_FACTORS = {"%": 100.0, "GiB": 2.0**-30}  # from the units of history.csv to those of the charts
CHART_SIZE = (3.6, 2.5)  # inches: some 340 px on the page, where 10 pt are 13 px
MAX_SEEDS = 12  # of a mode, of which each has its line
MARGIN = 0.06  # of the span, above and below

Histories = Mapping[str, Sequence[pd.DataFrame]]  # mode -> one frame per seed


@dataclass(frozen=True)
class CurveGroup:
    """One question and its charts."""

    question: str
    description: str
    charts: tuple[Chart, ...]


Styles = Mapping[str, ModeStyle]


class Curve(NamedTuple):
    mode: str  # "" for a curve that is the same for every mode
    name: str
    style: int  # of STYLES
    x: np.ndarray
    y: np.ndarray


def build_curve_groups(histories: Histories, titles: Mapping[str, str] = {}) -> list[CurveGroup]:
    """Every question for which some mode has a column; panels without data are omitted."""
    histories = {mode: summarise_seeds(frames) for mode, frames in histories.items()}
    columns = dict.fromkeys(
        c for frames in histories.values() for frame in frames for c in frame.columns
    )
    curve_groups = [
        CurveGroup(g.question, g.description, tuple(_iter_charts(g, histories)))
        for g in build_panel_groups(columns, titles)
    ]
    return [curve_group for curve_group in curve_groups if curve_group.charts]


def summarise_seeds(frames: Sequence[pd.DataFrame]) -> Sequence[pd.DataFrame]:
    """The frames, or of more than MAX_SEEDS the least, the median and the largest value of each
    column at each epoch: a thousand lines show no more, and take minutes and 50 MiB.
    """
    with_epochs = [frame for frame in frames if "epoch" in frame]
    if len(with_epochs) <= MAX_SEEDS:
        return frames
    epochs = pd.concat(with_epochs).select_dtypes("number").groupby("epoch")
    return [summary.reset_index() for summary in (epochs.min(), epochs.median(), epochs.max())]


def _iter_charts(group: PanelGroup, histories: Histories) -> Iterator[Chart]:
    panel_curves = [
        list(
            _iter_profile_curves(p, histories)
            if isinstance(p, Profile)
            else _iter_epoch_curves(p, histories)
        )
        for p in group.panels
    ]
    styles = style_modes(histories)
    line_width = 1.9 if all(len(frames) <= 1 for frames in histories.values()) else 1.1
    for panel, curves in zip(group.panels, panel_curves, strict=True):
        if any(curve.mode for curve in curves):
            row_curves = [
                curve
                for p, several in zip(group.panels, panel_curves, strict=True)
                if panel.row and p.row == panel.row
                for curve in several
            ]
            limits = _compute_limits(row_curves or curves)
            yield _draw_chart(panel, curves, styles, limits, line_width)


def _iter_epoch_curves(panel: Panel, histories: Histories) -> Iterator[Curve]:
    """The lines of the modes, then their reference: the mean over all training runs."""
    factor = UNIT_FACTORS.get(panel.unit, 1.0)
    frames = [
        (mode, frame)
        for mode, several in histories.items()
        for frame in several
        if "epoch" in frame
    ]
    for style, (column, name) in enumerate(panel.lines.items()):
        for mode, frame in frames:
            if column in frame and np.isfinite(frame[column]).any():
                yield Curve(
                    mode,
                    name,
                    style,
                    1 + frame["epoch"].to_numpy(),
                    factor * frame[column].to_numpy(),
                )
    for style, (column, name) in enumerate(panel.references.items(), 1):
        series = [frame.set_index("epoch")[column] for _, frame in frames if column in frame]
        if series:
            mean = pd.concat(series, axis=1).mean(axis=1)
            yield Curve("", name, style, 1 + mean.index.to_numpy(), factor * mean.to_numpy())


def _iter_profile_curves(panel: Profile, histories: Histories) -> Iterator[Curve]:
    """Accuracy by bin of overlap after the first and the last epoch, beside matching by
    position.
    """
    factor = UNIT_FACTORS.get(panel.unit, 1.0)
    middles = 100 * (np.array([float(low) for low in OVERLAP_BINS]) + 0.125)
    columns, identity_columns = (
        [f"match/{f}/overlap-{low}" for low in OVERLAP_BINS] for f in (panel.features, "identity")
    )
    mode_frames = [
        (mode, frame)
        for mode, frames in histories.items()
        for frame in frames
        if {*columns, *identity_columns} <= set(frame.columns)
        and frame[columns].notna().any(axis=None)
    ]
    for mode, frame in mode_frames:
        yield Curve(mode, "last epoch", 0, middles, factor * frame[columns].iloc[-1].to_numpy())
        if len(frame) > 1:
            yield Curve(mode, "first", 2, middles, factor * frame[columns].iloc[0].to_numpy())
    if mode_frames:
        mean = pd.concat(
            [frame[identity_columns].iloc[-1] for _, frame in mode_frames], axis=1
        ).mean(axis=1)
        yield Curve("", "same index", 1, middles, factor * mean.to_numpy())


def _compute_limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Limits of the vertical axis; they include 0, so that heights can be compared."""
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for curve in curves])
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    margin = MARGIN * (high - low or 1.0)
    return low - margin if low < 0 else 0.0, high + margin


def _draw_chart(
    panel: Panel | Profile,
    curves: Sequence[Curve],
    styles: Styles,
    limits: tuple[float, float],
    line_width: float,
) -> Chart:
    x_label = "epoch" if isinstance(panel, Panel) else "overlap of the crops, %"

    def draw_axes(axes: "Axes") -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        for curve in curves:
            axes.plot(
                curve.x,
                curve.y,
                linestyle=LINE_STYLES[curve.style],
                color=styles[curve.mode].colour if curve.mode else INK,
                linewidth=line_width if curve.mode else 1.0,
                zorder=2 if curve.mode else 1.5,
            )
        _draw_markers(axes, curves, styles, 2.5 * line_width, 0.03 * (limits[1] - limits[0]))
        axes.set(xlabel=x_label, ylabel=panel.unit, ylim=limits)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if isinstance(panel, Profile):
            axes.set(xlim=(0, 100), xticks=[0, 25, 50, 75, 100])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _format_tick(value)))
        if limits[0] < 0:
            axes.axhline(0, color=INK, linewidth=0.8)
        _draw_legend(axes, curves)

    alt = f"{panel.title}, {panel.unit}, by {x_label}: {_describe_curves(curves)}"
    return draw_chart(
        f"curve {panel.title}", panel.title, CHART_SIZE, alt, panel.caption, draw_axes
    )


def _draw_markers(
    axes: "Axes", curves: Sequence[Curve], styles: Styles, size: float, tolerance: float
) -> None:
    """Draw each mode's marker at the end of its line, or earlier if another marker is there, so
    that colour is not needed.
    """
    ends: list[tuple[str, float]] = []
    for curve in curves:
        finite = np.flatnonzero(np.isfinite(curve.y))
        if curve.mode and len(finite):
            value = float(curve.y[finite[-1]])
            hidden = {
                mode for mode, end in ends if mode != curve.mode and abs(end - value) < tolerance
            }
            index = finite[max(0, len(finite) - 1 - len(hidden))]
            axes.plot(
                curve.x[index],
                curve.y[index],
                styles[curve.mode].marker,
                color=styles[curve.mode].colour,
                markersize=size,
                zorder=3,
            )
            ends.append((curve.mode, value))


def _format_tick(value: float) -> str:
    """The shortest label: 65,536; 0.25; 1e−5."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return text.replace("e-0", "e-").replace("-", "−")


def _draw_legend(axes: "Axes", curves: Sequence[Curve]) -> None:
    """Draw the legend of line styles above the axes."""
    from matplotlib.lines import Line2D

    names = {
        curve.name: Line2D(
            [],
            [],
            color=INK,
            linestyle=LINE_STYLES[curve.style],
            linewidth=1.0 if not curve.mode else 1.9,
        )
        for curve in curves
    }
    if len(names) == 1:  # the title says it
        return
    axes.legend(
        list(names.values()),
        list(names),
        loc="lower left",
        bbox_to_anchor=(-0.12, 1.0),
        ncols=len(names),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        handlelength=1.7,
        columnspacing=1.0,
        borderpad=0.1,
        handletextpad=0.5,
    )


def _describe_curves(curves: Sequence[Curve]) -> str:
    """Text alternative: start and end of each line, as the mean over its seeds."""
    ends = pd.DataFrame(
        [
            (f"{curve.mode} {curve.name}".strip(), *curve.y[np.isfinite(curve.y)][[0, -1]])
            for curve in curves
            if np.isfinite(curve.y).any()
        ]
    )
    means = ends.groupby(0, sort=False).mean().itertuples()
    return "; ".join(f"{name} from {first:.3g} to {last:.3g}" for name, first, last in means)
