"""The comparison as a page, as text for a pull request, as a long table and for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from densecl import layout
from densecl.records import write_text
from densecl.reporting.differences import MEAN
from densecl.reporting.experiments.changes import Changes, Costs
from densecl.reporting.experiments.contents import SetChange
from densecl.reporting.experiments.differences import Versus
from densecl.reporting.experiments.lines import Line
from densecl.reporting.experiments.table import table
from densecl.reporting.experiments.verdict import cautions, interval, percent, points, sentences, verdict
from densecl.reporting.figures import COLOURS

TEMPLATES = Path(__file__).parents[1] / "templates"
CALLS = {
    "better": "better", "worse": "worse", "open": "not told apart", "identical": "identical",
    "unlike": "not judged", "missing": "missing",
}  # fmt: skip
WIDTH = 200  # of the picture of an interval
LONGEST = 40  # rows of a list in a pull request: a comment may hold 65,536 characters
VALUE = 300  # characters of a value there


@dataclass(frozen=True)
class Picture:
    """An interval on the scale of its table, in units of WIDTH."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class Entry:
    """A line as it is shown."""

    line: Line
    label: str
    a: str
    b: str
    change: str
    between: str
    p: str
    call: str
    about: str
    picture: Picture | None
    source: str


def write_comparison(found: Versus, changed: Changes, folder: Path) -> str:
    """Writes compare.html, compare.md and compare.csv to `folder`; the verdict and a plain table as text."""
    page = _page(found, changed)
    for name in ("compare.html", "compare.md"):
        write_text(folder / name, _environment(name).get_template(name).render(page))
    text = table(found, changed).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_text(folder / "compare.csv", text)
    return _plain(page)


def _page(found: Versus, changed: Changes) -> dict[str, Any]:
    far = _far(found)
    return {
        "verdict": verdict(found), "sentences": sentences(found, changed), "cautions": cautions(found, changed),
        "sides": [_side(found, letter) for letter in "AB"], "far": percent(far), "width": WIDTH,
        "level": f"{100 * found.values.confidence:g}", "samples": found.values.bootstrap_samples,
        "alpha": f"{1 - found.values.confidence:.3g}",
        "groups": [(m, [_entry(line, far) for line in found.lines if line.mode == m]) for m in _modes(found)],
        "alone": [line for line in found.lines if len(line.alone) > 1], "costs": [_cost(c) for c in changed.costs],
        "changed": changed, "data": [_data(d, changed) for d in changed.data], "longest": LONGEST, "value": VALUE,
        "models": _models(changed), "mean": MEAN, "point": points, "percent": percent, "interval": interval,
    }  # fmt: skip


def _modes(found: Versus) -> list[str]:
    """In the report's order; one that it does not know comes last."""
    return sorted(found.modes, key=lambda mode: [*COLOURS, mode].index(mode))


def _side(found: Versus, letter: str) -> dict[str, str]:
    x = found.a if letter == "A" else found.b
    plan = x.plan
    seeds = f"seed{'s'[: len(plan.seeds) > 1]} {', '.join(map(str, plan.seeds))}"
    return {
        "letter": letter, "name": x.origin.name, "commit": x.origin.commit[:12],
        "dirty": "changed since" if x.origin.dirty else "",
        "holds": f"{len(plan.datasets)} set{'s'[: len(plan.datasets) > 1]}; {', '.join(plan.modes)}; {seeds}",
    }  # fmt: skip


def _far(found: Versus) -> float:
    """The largest limit of an interval: the end of the pictures' scale."""
    return max((max(-e.low, e.high) for line in found.lines if (e := line.difference)), default=0) or 0.01


def _entry(line: Line, far: float) -> Entry:
    e = line.difference
    files = (
        ""
        if line.dataset == MEAN
        else ", ".join(str(layout.predictions(line.dataset, line.mode, s)) for s in line.seeds)
    )
    about = [f"{line.images:,} images"] if line.images else []
    about += [f"left out: {line.left_out}"] if str(line.left_out) else []
    about += [f"seeds {', '.join(map(str, line.seeds))}"] if len(line.seeds) > 1 else []
    return Entry(
        line, "mean of shifted" if line.dataset == MEAN else line.dataset,
        "–" if line.a is None else percent(line.a), "–" if line.b is None else percent(line.b),
        points(e.value) if e else CALLS[line.call], interval(e) if e else "",
        "" if line.p_holm is None else "p < 0.001" if line.p_holm < 0.001 else f"p = {line.p_holm:.3f}",
        CALLS[line.call], "; ".join([*about, *([line.note] if line.note else [])]),
        Picture(*(WIDTH / 2 * (1 + x / far) for x in (e.low, e.value, e.high))) if e else None, files,
    )  # fmt: skip


def _cost(costs: Costs) -> dict[str, str]:
    """Each entry "A → B"; what was not trained again is the same training."""

    def arrow(name: str, show: str, factor: float = 1.0) -> str:
        return f"{factor * costs.a[name]:{show}} → {factor * costs.b[name]:{show}}"

    return {
        "mode": costs.mode, "step": arrow("step_seconds", ",.1f", 1000),
        "ratio": f"{costs.b['step_seconds'] / costs.a['step_seconds']:.2f} ×", "none": arrow("against_none", ".2f"),
        "memory": arrow("peak_memory_bytes", ".2f", 2.0**-30), "minutes": arrow("wall_seconds", ".1f", 1 / 60),
        "rate": arrow("images_per_second", ",.0f"), "same": "the same training" if costs.same else "",
        "device": costs.devices[0] if costs.devices[0] == costs.devices[1] else " → ".join(costs.devices),
    }  # fmt: skip


def _data(change: SetChange, changed: Changes) -> tuple[str, str, str, str]:
    """Set, images of A, of B, what differs."""
    kinds = (
        (change.added, "added"), (change.removed, "removed"), (change.changed, "with another content"),
        (change.relabelled, "with another class"), (change.moved, "of those added only renamed"),
    )  # fmt: skip
    said = ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)
    if None in change.images:
        said = "no manifest in " + " and ".join(x for x, n in zip("AB", change.images, strict=True) if n is None)
    elif change.same:
        said = "the same"
    source = changed.sources.get(change.dataset)
    if source is False and (change.same or not said):
        said = (said or "the same images") + "; the folder or archive has changed"
    counts = ["–" if n is None else f"{n:,}" for n in change.images]
    return change.dataset, counts[0], counts[1], said or "the same images"


def _models(changed: Changes) -> str:
    """Which models were trained again."""
    same, other = ([run for run, alike in changed.models.items() if alike == want] for want in (True, False))
    said = [
        f"{', '.join(runs)}: {text}" for runs, text in ((other, "other weights"), (same, "the same weights")) if runs
    ]
    return "; ".join(said)


def _environment(name: str) -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    html = name.endswith(".html")
    return Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=html,  # noqa: S701 - `harmless` sees to the Markdown
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=None if html else harmless,
    )  # fmt: skip


def harmless(value: object) -> object:
    """Text that a pull request shows as it is: no markup, no link, no mention, also inside a table."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = re.sub(r"\s+", " ", value)
    text = re.sub(
        r"([\\`*_\[\]<>|~$&])", r"\\\1", text if len(text) <= 4 * LONGEST * 10 else text[: 4 * LONGEST * 10] + "…"
    )
    # A word joiner, which has no width, keeps what follows from becoming a mention, an issue or a link.
    return re.sub(r"(?i)([@#]|://|www\.)", "\\1\u2060", text)


def _plain(page: dict[str, Any]) -> str:
    rows = [("mode", "set", "A", "B", "B − A", "")]
    for mode, entries in page["groups"]:
        rows += [
            (mode, e.label, e.a, e.b, f"{e.change} {e.between}".strip(), e.call if e.change != e.call else "")
            for e in entries
        ]
    return "\n".join([*_aligned(rows), "", page["verdict"], *page["sentences"], *page["cautions"]])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in rows]
