"""Training curves of all modes: a line a (mode, seed), small multiples grouped by question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from densecl.report.charts.panels import BINS, Group, Panel, Profile, groups
from densecl.report.charts.svg import COLOURS, INK, MARKERS, Chart, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)))  # solid, dashed, dotted
FACTORS = {"%": 100.0, "GiB": 2.0**-30}  # from what history.csv holds to what is drawn
SIZE = (3.6, 2.5)  # inches: some 340 px on the page, where 10 pt are 13 px
MARGIN = 0.06  # of the span, above and below

Histories = Mapping[str, Sequence[pd.DataFrame]]  # mode -> a frame a seed


@dataclass(frozen=True)
class Curves:
    """One question and the charts that answer it."""

    question: str
    about: str
    charts: tuple[Chart, ...]


class Line(NamedTuple):
    mode: str  # "" for what is the same in every mode
    name: str
    style: int  # of STYLES
    x: np.ndarray
    y: np.ndarray


def training(histories: Histories) -> list[Curves]:
    """Every question of which some mode has a column; panels without any are left out."""
    columns = dict.fromkeys(
        c for frames in histories.values() for frame in frames for c in frame.columns
    )
    drawn = [Curves(g.question, g.about, tuple(_charts(g, histories))) for g in groups(columns)]
    return [each for each in drawn if each.charts]


def _charts(group: Group, histories: Histories) -> Iterator[Chart]:
    lines = [
        list(_profile(p, histories) if isinstance(p, Profile) else _over_epochs(p, histories))
        for p in group.panels
    ]
    thick = 1.9 if all(len(frames) <= 1 for frames in histories.values()) else 1.1
    for panel, own in zip(group.panels, lines, strict=True):
        if any(line.mode for line in own):
            mates = [
                each
                for p, several in zip(group.panels, lines, strict=True)
                if panel.row and p.row == panel.row
                for each in several
            ]
            yield _chart(panel, own, _limits(mates or own), thick)


def _over_epochs(panel: Panel, histories: Histories) -> Iterator[Line]:
    """The modes' lines, then what they stand beside: the mean over all trainings."""
    factor = FACTORS.get(panel.unit, 1.0)
    frames = [
        (mode, frame)
        for mode, several in histories.items()
        for frame in several
        if "epoch" in frame
    ]
    for style, (column, name) in enumerate(panel.lines.items()):
        for mode, frame in frames:
            if column in frame and np.isfinite(frame[column]).any():
                yield Line(
                    mode,
                    name,
                    style,
                    1 + frame["epoch"].to_numpy(),
                    factor * frame[column].to_numpy(),
                )
    for style, (column, name) in enumerate(panel.beside.items(), 1):
        having = [frame.set_index("epoch")[column] for _, frame in frames if column in frame]
        if having:
            mean = pd.concat(having, axis=1).mean(axis=1)
            yield Line("", name, style, 1 + mean.index.to_numpy(), factor * mean.to_numpy())


def _profile(panel: Profile, histories: Histories) -> Iterator[Line]:
    """After the last and the first epoch, by bin of overlap; beside them the same index."""
    factor = FACTORS.get(panel.unit, 1.0)
    middles = 100 * (np.array([float(low) for low in BINS]) + 0.125)
    own, same = ([f"match/{f}/overlap-{low}" for low in BINS] for f in (panel.features, "identity"))
    having = [
        (mode, frame)
        for mode, frames in histories.items()
        for frame in frames
        if {*own, *same} <= set(frame.columns) and frame[own].notna().any(axis=None)
    ]
    for mode, frame in having:
        yield Line(mode, "last epoch", 0, middles, factor * frame[own].iloc[-1].to_numpy())
        if len(frame) > 1:
            yield Line(mode, "first", 2, middles, factor * frame[own].iloc[0].to_numpy())
    if having:
        mean = pd.concat([frame[same].iloc[-1] for _, frame in having], axis=1).mean(axis=1)
        yield Line("", "same index", 1, middles, factor * mean.to_numpy())


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Of the vertical axis: 0 is always on it, so that heights can be compared."""
    values = np.concatenate([line.y[np.isfinite(line.y)] for line in lines])
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    room = MARGIN * (high - low or 1.0)
    return low - room if low < 0 else 0.0, high + room


def _chart(
    panel: Panel | Profile, lines: Sequence[Line], limits: tuple[float, float], thick: float
) -> Chart:
    across = "epoch" if isinstance(panel, Panel) else "overlap of the crops, %"

    def draw(axes: Axes) -> None:
        from matplotlib.ticker import FuncFormatter, MaxNLocator

        for line in lines:
            _draw(axes, line, thick)
        _mark(axes, lines, 2.5 * thick, 0.03 * (limits[1] - limits[0]))
        axes.set_xlabel(across)
        axes.set_ylabel(panel.unit)
        axes.set_ylim(*limits)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        if isinstance(panel, Profile):
            axes.set_xlim(0, 100)
            axes.set_xticks([0, 25, 50, 75, 100])
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        if limits[0] < 0:
            axes.axhline(0, color=INK, linewidth=0.8)
        _legend(axes, lines)

    alt = f"{panel.title}, {panel.unit}, by {across}: {_spoken(lines)}"
    return Chart(panel.title, svg(f"curve {panel.title}", SIZE, alt, draw), alt, panel.look)


def _draw(axes: Axes, line: Line, thick: float) -> None:
    width, colour = (thick, COLOURS[line.mode]) if line.mode else (1.0, INK)
    axes.plot(
        line.x,
        line.y,
        linestyle=STYLES[line.style],
        color=colour,
        linewidth=width,
        zorder=2 if line.mode else 1.5,
    )


def _mark(axes: Axes, lines: Sequence[Line], size: float, near: float) -> None:
    """Each mode's marker where its line ends, so that it is known without colour; earlier where
    another one lies there.
    """
    ends: list[tuple[str, float]] = []
    for line in lines:
        seen = np.flatnonzero(np.isfinite(line.y))
        if line.mode and len(seen):
            value = float(line.y[seen[-1]])
            hidden = {mode for mode, end in ends if mode != line.mode and abs(end - value) < near}
            at = seen[max(0, len(seen) - 1 - len(hidden))]
            axes.plot(
                line.x[at],
                line.y[at],
                MARKERS[line.mode],
                color=COLOURS[line.mode],
                markersize=size,
                zorder=3,
            )
            ends.append((line.mode, value))


def _tick(value: float) -> str:
    """As short as it can be: 65,536; 0.25; 1e−5."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    return text.replace("e-0", "e-").replace("-", "−")


def _legend(axes: Axes, lines: Sequence[Line]) -> None:
    """What the styles mean, above the axes, where no line runs."""
    from matplotlib.lines import Line2D

    names = {
        line.name: Line2D(
            [], [], color=INK, linestyle=STYLES[line.style], linewidth=1.0 if not line.mode else 1.9
        )
        for line in lines
    }
    if len(names) == 1:  # the title says it
        return
    room: dict[str, Any] = {
        "handlelength": 1.7,
        "columnspacing": 1.0,
        "borderpad": 0.1,
        "handletextpad": 0.5,
    }
    axes.legend(
        list(names.values()),
        list(names),
        loc="lower left",
        bbox_to_anchor=(-0.12, 1.0),
        ncols=len(names),
        frameon=False,
        fontsize=9,
        labelcolor=INK,
        **room,
    )


def _spoken(lines: Sequence[Line]) -> str:
    """Where each kind of line begins and ends, as the mean over its seeds."""
    kinds: dict[tuple[str, str], list[np.ndarray]] = {}
    for line in lines:
        seen = line.y[np.isfinite(line.y)]
        if len(seen):
            kinds.setdefault((line.mode, line.name), []).append(seen[[0, -1]])
    ends = {kind: np.mean(several, axis=0) for kind, several in kinds.items()}
    return "; ".join(
        f"{f'{mode} {name}'.strip()} from {first:.3g} to {last:.3g}"
        for (mode, name), (first, last) in ends.items()
    )
