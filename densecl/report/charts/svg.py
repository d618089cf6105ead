"""Charts as inline SVG: unique ids, no dates, and colours from variables of the page."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from densecl.report.charts.mode_styles import list_variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, RULE, PAPER = "#101010", "#d0d0d0", "#fefefe"
# Variants go through the colours, then through the markers.
VARIANT_COLOURS = ("#009e73", "#cc79a7", "#b07d00", "#56b4e9", "#8c4a2f", "#6a51a3")
VARIANT_MARKERS = ("D", "v", "P", "X")
VARIABLES = {
    **{colour: f"var(--{name})" for name, colour in list_variables().items()},
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


STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a title is a dollar
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


def draw_chart(
    salt: str,
    title: str,
    size: tuple[float, float],
    alt: str,
    caption: str,
    draw: "Callable[[Axes], None]",
) -> Chart:
    return Chart(title, render_svg(salt, size, alt, draw), alt, caption)


def render_svg(
    salt: str, size: tuple[float, float], alt: str, draw: "Callable[[Axes], None]"
) -> str:
    """Call `draw` on one pair of axes of `size` inches; return an <svg> element for an HTML
    page.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**STYLE, "svg.hashsalt": salt}):
        figure = Figure(figsize=size)
        draw(figure.add_subplot())
        figure.tight_layout(pad=0.4)
        figure.set_layout_engine(None)  # one that is left there has savefig draw the chart twice
        text = io.StringIO()
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _convert_to_inline(text.getvalue(), salt, alt)


def _convert_to_inline(text: str, salt: str, alt: str) -> str:
    """The bare <svg> element: ids made unique by `salt`, named colours replaced by page
    variables.
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
