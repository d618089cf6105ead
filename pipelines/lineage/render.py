"""A chain as text, as Mermaid and as a page that opens offline."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pipelines.lineage.chain import VALUES, Chain, Link

WIDTH, HEIGHT, ACROSS, DOWN = 196, 44, 232, 60  # px: a box, and from one to the next


def text(chain: Chain) -> str:
    """The chain for a terminal, the Mermaid source last."""
    lines = [chain.found, f"from {chain.source}, {held(chain)}"]
    lines += [f"! {note}" for note in chain.notes]
    for kind, links in groupby(chain.links, lambda link: link.kind):
        lines += ["", kind.upper()]
        for link in links:
            lines += [
                f"  {link.name}",
                *(
                    f"    {part:<7} {what}"
                    for part, what in _parts(link)
                    if _short_enough(link, part)
                ),
            ]
    return _plain("\n".join([*lines, "", "MERMAID", *mermaid(chain).splitlines()])) + "\n"


def _short_enough(link: Link, part: str) -> bool:
    """On a terminal the values of a training alone are written out; the page has those of every
    stage.
    """
    return part != VALUES or link.kind == "training"


def held(chain: Chain) -> str:
    """The commit that the chain belongs to, in words."""
    if not chain.git:
        return "in no git commit"
    return f"git {chain.git}" + (
        " (that commit and changes that are in none)" if chain.git.endswith("+") else ""
    )


def mermaid(chain: Chain) -> str:
    """A flowchart; names cannot become its syntax."""
    number = {link.name: f"n{i}" for i, link in enumerate(chain.links)}
    lines = ["flowchart LR"]
    lines += [
        f'  {number[link.name]}["{_entities(link.name)}<br/>{_entities(_short(link))}"]'
        for link in chain.links
    ]
    return "\n".join([*lines, *(f"  {number[a]} --> {number[b]}" for a, b in chain.edges)]) + "\n"


def page(chain: Chain) -> str:
    """HTML that fetches nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: _plain(str(value)),
    )
    boxes = _boxes(chain)
    places = {box.link.name: box for box in boxes}
    curves = [_curve(places[a], places[b]) for a, b in chain.edges]
    size = {
        "width": max((b.x for b in boxes), default=0) + WIDTH + 2,
        "height": max((b.y for b in boxes), default=0) + HEIGHT + 2,
    }
    shown: dict[str, Any] = {
        "chain": chain,
        "held": held(chain),
        "boxes": boxes,
        "curves": curves,
        "mermaid": mermaid(chain),
        "box": (WIDTH, HEIGHT),
    }
    return templates.get_template("lineage.html").render(**shown, **size)


@dataclass(frozen=True)
class Box:
    """A link in the picture: its upper left corner in px, and what stands in it."""

    link: Link
    number: int
    x: int
    y: int
    parts: tuple[tuple[str, str], ...]
    name: str
    small: str


def _boxes(chain: Chain) -> list[Box]:
    kinds, boxes = list(dict.fromkeys(link.kind for link in chain.links)), []
    below = dict.fromkeys(kinds, 0)
    for number, link in enumerate(chain.links):
        x, y = 1 + ACROSS * kinds.index(link.kind), 1 + DOWN * below[link.kind]
        below[link.kind] += 1
        boxes.append(
            Box(link, number, x, y, tuple(_parts(link)), _cut(link.name), _cut(_short(link)))
        )
    return boxes


def _curve(a: Box, b: Box) -> str:
    x, y, to, down = a.x + WIDTH, a.y + HEIGHT // 2, b.x, b.y + HEIGHT // 2
    return f"M{x} {y} C{x + 30} {y} {to - 30} {down} {to} {down}"


def _parts(link: Link) -> list[tuple[str, str]]:
    def shown(path: str, md5: str, files: int | None) -> str:
        return f"{path} {md5}" + (f" ({files} files)" if files else "")

    parts = [("reads", shown(f.path, f.md5, f.files)) for f in link.reads]
    parts += [
        (key.partition(" ")[0], f"{key.partition(' ')[2]} {value}".strip())
        for key, value in link.facts
    ]
    parts += [("left", shown(f.path, f.md5, f.files)) for f in link.writes]
    return parts + [("!", note) for note in link.notes]


def _short(link: Link) -> str:
    return (
        f"md5 {link.writes[0].md5[:12]}"
        if link.writes
        else next((value for key, value in link.facts), "")
    )


def _cut(name: str, length: int = 26) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _entities(name: str) -> str:
    return "".join(
        c if c.isalnum() or c in " @/._-:,+…" else f"#{ord(c)};" for c in " ".join(name.split())
    )


def _plain(words: str) -> str:
    """Without what moves a terminal's cursor, some of which no HTML may hold."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in words)
