"""A chain as text, as Mermaid and as a page that opens offline."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.lineage.chain import VALUES, Lineage, LineageNode

BOX_WIDTH, BOX_HEIGHT, COLUMN_STEP, ROW_STEP = (
    196,
    44,
    232,
    60,
)  # px: a box, and from one to the next


def render_text(lineage: Lineage) -> str:
    """The chain for a terminal, the Mermaid source last."""
    lines = [lineage.resolved_as, f"from {lineage.source}, {format_commit(lineage)}"]
    lines += [f"! {note}" for note in lineage.notes]
    for kind, nodes in groupby(lineage.nodes, lambda node: node.kind):
        lines += ["", kind.upper()]
        for node in nodes:
            lines += [
                f"  {node.name}",
                *(
                    f"    {part:<7} {what}"
                    for part, what in _list_parts(node)
                    if _is_printed(node, part)
                ),
            ]
    return (
        _remove_control_chars(
            "\n".join([*lines, "", "MERMAID", *render_mermaid(lineage).splitlines()])
        )
        + "\n"
    )


def _is_printed(node: LineageNode, part: str) -> bool:
    """On a terminal the values of a training alone are written out; the page has those of every
    stage.
    """
    return part != VALUES or node.kind == "training"


def format_commit(lineage: Lineage) -> str:
    """The commit that the chain belongs to, in words."""
    if not lineage.git:
        return "in no git commit"
    return f"git {lineage.git}" + (
        " (that commit and changes that are in none)" if lineage.git.endswith("+") else ""
    )


def render_mermaid(lineage: Lineage) -> str:
    """A flowchart; names cannot become its syntax."""
    number = {node.name: f"n{i}" for i, node in enumerate(lineage.nodes)}
    lines = ["flowchart LR"]
    lines += [
        f"  "
        f'{number[node.name]}["{_escape_mermaid(node.name)}<br/>{_escape_mermaid(_format_summary(node))}"]'
        for node in lineage.nodes
    ]
    return "\n".join([*lines, *(f"  {number[a]} --> {number[b]}" for a, b in lineage.edges)]) + "\n"


def render_page(lineage: Lineage) -> str:
    """HTML that fetches nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _remove_control_chars(str(value)),
    )
    boxes = _place_boxes(lineage)
    box_by_name = {box.node.name: box for box in boxes}
    curves = [_draw_curve(box_by_name[a], box_by_name[b]) for a, b in lineage.edges]
    size = {
        "width": max((b.x for b in boxes), default=0) + BOX_WIDTH + 2,
        "height": max((b.y for b in boxes), default=0) + BOX_HEIGHT + 2,
    }
    context: dict[str, Any] = {
        "lineage": lineage,
        "commit": format_commit(lineage),
        "boxes": boxes,
        "curves": curves,
        "mermaid": render_mermaid(lineage),
        "box": (BOX_WIDTH, BOX_HEIGHT),
    }
    return templates.get_template("lineage.html").render(**context, **size)


@dataclass(frozen=True)
class NodeBox:
    """A link in the picture: its upper left corner in px, and what stands in it."""

    node: LineageNode
    number: int
    x: int
    y: int
    parts: tuple[tuple[str, str], ...]
    name: str
    small: str


def _place_boxes(lineage: Lineage) -> list[NodeBox]:
    kinds, boxes = list(dict.fromkeys(node.kind for node in lineage.nodes)), []
    below = dict.fromkeys(kinds, 0)
    for number, node in enumerate(lineage.nodes):
        x, y = 1 + COLUMN_STEP * kinds.index(node.kind), 1 + ROW_STEP * below[node.kind]
        below[node.kind] += 1
        boxes.append(
            NodeBox(
                node,
                number,
                x,
                y,
                tuple(_list_parts(node)),
                _clip_text(node.name),
                _clip_text(_format_summary(node)),
            )
        )
    return boxes


def _draw_curve(a: NodeBox, b: NodeBox) -> str:
    x, y, to, down = a.x + BOX_WIDTH, a.y + BOX_HEIGHT // 2, b.x, b.y + BOX_HEIGHT // 2
    return f"M{x} {y} C{x + 30} {y} {to - 30} {down} {to} {down}"


def _list_parts(node: LineageNode) -> list[tuple[str, str]]:
    def format_file(path: str, md5: str, files: int | None) -> str:
        return f"{path} {md5}" + (f" ({files} files)" if files else "")

    parts = [("reads", format_file(f.path, f.md5, f.files)) for f in node.reads]
    parts += [
        (key.partition(" ")[0], f"{key.partition(' ')[2]} {value}".strip())
        for key, value in node.facts
    ]
    parts += [("left", format_file(f.path, f.md5, f.files)) for f in node.writes]
    return parts + [("!", note) for note in node.notes]


def _format_summary(node: LineageNode) -> str:
    return (
        f"md5 {node.writes[0].md5[:12]}"
        if node.writes
        else next((value for key, value in node.facts), "")
    )


def _clip_text(text: str, length: int = 26) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _escape_mermaid(name: str) -> str:
    return "".join(
        c if c.isalnum() or c in " @/._-:,+…" else f"#{ord(c)};" for c in " ".join(name.split())
    )


def _remove_control_chars(text: str) -> str:
    """Without what moves a terminal's cursor, some of which no HTML may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
