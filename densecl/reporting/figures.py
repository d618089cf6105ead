"""Figures as inline SVG: no ids that repeat on the page, no dates, colours from the page's own variables."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from densecl.reporting.comparison import MEAN, Comparison, Row, called

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion with a neutral grey: any colour vision tells them apart; so do the markers.
COLOURS = {"dense": "#0072b2", "global": "#d55e00", "none": "#7a7a7a"}
MARKERS = {"dense": "o", "global": "s", "none": "^"}
INK, RULE, PAPER = "#101010", "#d0d0d0", "#fefefe"
VARIABLES = {**{colour: f"var(--{mode})" for mode, colour in COLOURS.items()},
             INK: "var(--ink)", RULE: "var(--rule)", PAPER: "var(--paper)"}  # fmt: skip


@dataclass(frozen=True)
class Chart:
    title: str
    svg: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Curve:
    """One panel of training curves: columns of history.csv drawn with a line style each."""

    title: str
    columns: dict[str, str]  # column -> line style
    caption: str
    scale: float = 1.0


CURVES = (
    Curve("Classification loss", {"classification_loss": "-"},
          "Should fall for every mode; a higher end under a contrastive mode is what the second objective costs."),
    Curve("Contrastive loss", {"contrastive_loss": "-", "contrastive_chance": ":"},
          "Solid: the loss; dotted: what guessing gives. Only the distance below the dotted line has been learned."),
    Curve("Training top-1, %", {"train_top1": "-"},
          "On augmented training images. High here and low on the sets: memorised.", 100),
    Curve("Pretext top-1, %", {"pretext_top1": "-"},
          "How often the positive beats every negative. Near 100 % early: the task is too easy to teach more.", 100),
    Curve("Similarity of pairs", {"positive_similarity": "-", "negative_similarity": "--"},
          "Solid: positives; dashed: negatives. Both near 1 together would mean collapse."),
    Curve("Gradient conflict", {"gradient_cosine": "-"},
          "Cosine between the two losses' gradients at the last block. Below 0 they work against each other."),
    Curve("Effective rank, images", {"rank_cls": "-", "rank_patches_across": "--"},
          "Directions the features really use. Solid: CLS; dashed: patches of different images. A fall towards 1 is collapse."),
    Curve("Effective rank, patches", {"rank_patches_within": "-"},
          "Directions the patches of one image use. A fall towards 1: all patches say the same."),
    Curve("Matches on the true patch, %", {"match/dense/within0": "-", "match/last/within0": "--", "match/identity/within0": ":"},
          "Solid: the head's features; dashed: the backbone's; dotted: the same index, which knows position only.", 100),
    Curve("Matches of moved views, %", {"match/dense/moved0": "-", "match/last/moved0": "--", "match/identity/moved0": ":"},
          "The same where one view is flipped or shifted: not above the dotted line means that position was learned.", 100),
    Curve("Different images in the memory", {"queue_unique_images": "-"},
          "More images give more varied negatives; dense writes many patches of each."),
    Curve("Memory filled, %", {"queue_filled": "-", "queue_same_class": "--"},
          "Solid: entries that serve as negatives; dashed: how often two of them share a class.", 100),
)  # fmt: skip


@contextmanager
def _style(salt: str) -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context({
        "svg.hashsalt": salt, "svg.fonttype": "none", "font.size": 10, "font.family": "DejaVu Sans",
        "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": RULE,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": RULE,
        "grid.linewidth": 0.5, "xtick.major.size": 0, "ytick.major.size": 0, "axes.axisbelow": True,
    }):  # fmt: skip
        yield


def _svg(salt: str, size: tuple[float, float], alt: str, draw: Callable[[Axes], None]) -> str:
    """`draw`n on one pair of axes of `size` inches, as an <svg> element for an HTML page."""
    from matplotlib.figure import Figure

    with _style(salt):
        figure: Figure = Figure(figsize=size, layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(text.getvalue(), salt, alt)


def _inline(text: str, salt: str, alt: str) -> str:
    """The bare <svg>: only ids that are referred to, made unique by `salt`; named colours become page variables."""
    from markupsafe import escape

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)[\")]", text))
    prefix = re.sub(r"\W", "-", salt)
    text = re.sub(r' id="([\w.:-]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(xlink:href="#|url\(#)([\w-]+)', lambda m: f"{m[1].replace('xlink:', '')}{prefix}-{m[2]}", text)
    for colour, variable in VARIABLES.items():
        text = re.sub(rf"((?:fill|stroke): ){colour}", rf"\1{variable}", text, flags=re.IGNORECASE)
    box = re.search(r'viewBox="[^"]+"', text)
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{escape(alt)}">'
    return re.sub(r"<svg[^>]*>", lambda _: head, text, count=1).strip()


def forest(found: Comparison, baseline: str) -> Chart | None:
    """Differences to `baseline` with intervals, a row a set and the mean below; None where there is nothing to draw."""
    modes = [m for m in COLOURS if m in found.plan.modes and m != baseline]
    sets = [*found.plan.datasets, MEAN]
    rows = {(s, m): found.get(s, m, f"difference_to_{baseline}") for s in sets for m in modes}
    if not any(r is not None and r.value is not None for r in rows.values()):
        return None

    def draw(axes: Axes) -> None:
        for (dataset, mode), row in rows.items():
            y = sets.index(dataset) + 0.26 * (modes.index(mode) - (len(modes) - 1) / 2)
            if row is None or row.value is None or row.low is None or row.high is None:
                axes.annotate(f" {mode}: no value", (0, y), color=INK, fontsize=8, ha="left", va="center")
                continue
            low, middle, high = 100 * row.low, 100 * row.value, 100 * row.high
            sure = bool(called(found, dataset, mode, baseline))
            colour = COLOURS[mode]
            axes.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(middle, y, MARKERS[mode], markersize=8, color=colour, markeredgewidth=1.8,
                      markerfacecolor=colour if sure else PAPER)  # fmt: skip
        axes.axvline(0, color=INK, linewidth=1)
        axes.axhline(len(sets) - 1.5, color=RULE, linewidth=1)
        axes.set_yticks(range(len(sets)), [_short(s) for s in sets[:-1]] + ["mean of shifted"])
        axes.set_ylim(len(sets) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"points of top-1 above {baseline}")

    alt = _spoken(rows, baseline)
    svg = _svg("forest", (4.9, 0.8 + 0.42 * len(sets)), alt, draw)
    return Chart(f"Difference to {baseline}", svg, alt, _forest_caption(found, modes, baseline))


def _forest_caption(found: Comparison, modes: Sequence[str], baseline: str) -> str:
    shapes = {"o": "circles", "s": "squares", "^": "triangles"}
    keys = ", ".join(f"{shapes[MARKERS[m]]}: {m}" for m in modes)
    level = round(100 * found.plan.values.confidence)
    return (
        f"{keys[0].upper()}{keys[1:]}. Right of the line: better than {baseline}. Bars are {level} % intervals. "
        "Filled: told apart after Holm's correction; hollow: not told apart."
    )


def _spoken(rows: Mapping[tuple[str, Any], Row | None], baseline: str) -> str:
    said = [
        f"{mode} on {'the mean of the shifted sets' if s == MEAN else s} {100 * r.value:+.1f}"
        for (s, mode), r in rows.items()
        if r is not None and r.value is not None
    ]
    return f"Points of top-1 above {baseline}: " + ", ".join(said)


def _short(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"


def training(histories: dict[str, list[pd.DataFrame]]) -> list[Chart]:
    """A panel for each curve that any mode has, then one for each validated set."""
    frames = [frame for several in histories.values() for frame in several]
    sets = dict.fromkeys(c for frame in frames for c in frame.columns if c.startswith("top1/"))
    panels = [*CURVES, *(Curve(f"Top-1 on {c.removeprefix('top1/')}, %", {c: "-"},
                               "Top-1 after each epoch; the last one is the model's.", 100) for c in sets)]  # fmt: skip
    return [chart for panel in panels if (chart := _curve(panel, histories)) is not None]


def _curve(panel: Curve, histories: dict[str, list[pd.DataFrame]]) -> Chart | None:
    lines = [
        (mode, style, column, frame["epoch"], panel.scale * frame[column])
        for column, style in panel.columns.items()
        for mode, frames in histories.items()
        for frame in frames
        if "epoch" in frame and column in frame and frame[column].notna().any()
    ]
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for mode, style, _, epochs, values in lines:
            width = 2.0 if len(histories[mode]) == 1 else 1.2
            dot = MARKERS[mode] if len(epochs) <= 2 else ""
            axes.plot(epochs, values, style, color=COLOURS[mode], linewidth=width, marker=dot)
        axes.set_xlabel("epoch")
        axes.locator_params(axis="x", integer=True)
        axes.margins(y=0.08)

    ends = dict.fromkeys(
        f"{mode} {column.removeprefix('top1/').replace('_', ' ')} {values.dropna().iloc[-1]:.3g}"
        for mode, _, column, _, values in lines
    )
    alt = f"{panel.title} by epoch. At the end: " + ", ".join(ends)
    return Chart(panel.title, _svg(f"curve-{panel.title}", (3.6, 2.3), alt, draw), alt, panel.caption)
