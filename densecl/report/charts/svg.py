"""Figures as inline SVG: no ids that repeat on the page, no dates, colours from the page's own
variables.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from densecl.analysis.comparison import SHIFTED_MEAN, Comparison, MetricRow, get_significance
from densecl.pages.formatting import clip_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's blue and vermilion with a neutral grey: any colour vision tells them apart; so do
# the markers.
COLOURS = {"dense": "#0072b2", "global": "#d55e00", "none": "#7a7a7a"}
MARKERS = {"dense": "o", "global": "s", "none": "^"}
INK, RULE, PAPER = "#101010", "#d0d0d0", "#fefefe"
VARIABLES = {
    **{colour: f"var(--{mode})" for mode, colour in COLOURS.items()},
    INK: "var(--ink)",
    RULE: "var(--rule)",
    PAPER: "var(--paper)",
}


@dataclass(frozen=True)
class Chart:
    title: str
    svg: str
    alt: str
    caption: str


@contextmanager
def _apply_style(salt: str) -> Iterator[None]:
    from matplotlib import rc_context

    with rc_context(
        {
            "svg.hashsalt": salt,
            "svg.fonttype": "none",
            "font.size": 10,
            "font.family": "DejaVu Sans",
            "text.color": INK,
            "axes.labelcolor": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "axes.edgecolor": RULE,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": RULE,
            "grid.linewidth": 0.5,
            "xtick.major.size": 0,
            "ytick.major.size": 0,
            "axes.axisbelow": True,
        }
    ):
        yield


def render_svg(salt: str, size: tuple[float, float], alt: str, draw: Callable[[Axes], None]) -> str:
    """`draw`n on one pair of axes of `size` inches, as an <svg> element for an HTML page."""
    from matplotlib.figure import Figure

    with _apply_style(salt):
        figure: Figure = Figure(figsize=size)
        draw(figure.add_subplot())
        figure.tight_layout(pad=0.4)  # once: a layout engine would draw every chart twice
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _convert_to_inline(text.getvalue(), salt, alt)


def _convert_to_inline(text: str, salt: str, alt: str) -> str:
    """The bare <svg>: only ids that are referred to, made unique by `salt`; named colours become
    page variables.
    """
    from markupsafe import escape

    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    used_ids = set(re.findall(r"#([\w-]+)[\")]", text))
    prefix = re.sub(r"\W", "-", salt)
    text = re.sub(
        r' id="([\w.:-]+)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in used_ids else "", text
    )
    text = re.sub(
        r'(xlink:href="#|url\(#)([\w-]+)',
        lambda m: f"{m[1].replace('xlink:', '')}{prefix}-{m[2]}",
        text,
    )
    for colour, variable in VARIABLES.items():
        text = re.sub(rf"((?:fill|stroke): ){colour}", rf"\1{variable}", text, flags=re.IGNORECASE)
    view_box = re.search(r'viewBox="[^"]+"', text)
    opening_tag = f'<svg {view_box[0] if view_box else ""} role="img" aria-label="{escape(alt)}">'
    return re.sub(r"<svg[^>]*>", lambda _: opening_tag, text, count=1).strip()


def draw_forest(comparison: Comparison, baseline: str) -> Chart | None:
    """Differences to `baseline` with intervals, one row per dataset and the mean below; None where
    there is nothing to draw.
    """
    modes = [m for m in COLOURS if m in comparison.plan.modes and m != baseline]
    datasets = [*comparison.plan.datasets, SHIFTED_MEAN]
    rows = {
        (s, m): comparison.get_row(s, m, f"difference_to_{baseline}")
        for s in datasets
        for m in modes
    }
    if not any(r is not None and r.value is not None for r in rows.values()):
        return None

    def draw_axes(axes: Axes) -> None:
        for (dataset, mode), row in rows.items():
            y = datasets.index(dataset) + 0.26 * (modes.index(mode) - (len(modes) - 1) / 2)
            if row is None or row.value is None or row.low is None or row.high is None:
                axes.annotate(
                    f" {mode}: no value", (0, y), color=INK, fontsize=8, ha="left", va="center"
                )
                continue
            low, middle, high = 100 * row.low, 100 * row.value, 100 * row.high
            significant = bool(get_significance(comparison, dataset, mode, baseline))
            colour = COLOURS[mode]
            axes.plot([low, high], [y, y], color=colour, linewidth=2.2, solid_capstyle="round")
            axes.plot(
                middle,
                y,
                MARKERS[mode],
                markersize=8,
                color=colour,
                markeredgewidth=1.8,
                markerfacecolor=colour if significant else PAPER,
            )
        axes.axvline(0, color=INK, linewidth=1)
        axes.axhline(len(datasets) - 1.5, color=RULE, linewidth=1)
        axes.set_yticks(
            range(len(datasets)), [clip_text(s, 22) for s in datasets[:-1]] + ["mean of shifted"]
        )
        axes.set_ylim(len(datasets) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"points of top-1 above {baseline}")

    alt = _describe_forest(rows, baseline)
    drawing = render_svg("forest", (4.2, 0.8 + 0.42 * len(datasets)), alt, draw_axes)
    return Chart(
        f"Difference to {baseline}",
        drawing,
        alt,
        _format_forest_caption(comparison, modes, baseline),
    )


def _format_forest_caption(comparison: Comparison, modes: Sequence[str], baseline: str) -> str:
    shapes = {"o": "circles", "s": "squares", "^": "triangles"}
    legend = ", ".join(f"{shapes[MARKERS[m]]}: {m}" for m in modes)
    level = round(100 * comparison.plan.values.confidence)
    return (
        f"{legend[0].upper()}{legend[1:]}. Right of the line: better than {baseline}. Bars are "
        f"{level} % intervals. "
        "Filled: significant after Holm's correction; hollow: not significant."
    )


def _describe_forest(rows: Mapping[tuple[str, Any], MetricRow | None], baseline: str) -> str:
    texts = [
        f"{mode} on {'the mean of the shifted sets' if s == SHIFTED_MEAN else s} "
        f"{100 * r.value:+.1f}"
        for (s, mode), r in rows.items()
        if r is not None and r.value is not None
    ]
    return f"Points of top-1 above {baseline}: " + ", ".join(texts)
