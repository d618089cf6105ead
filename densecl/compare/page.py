"""The comparison as a page, as text for a pull request, as a long table and for a terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densecl.analysis.differences import MEAN
from densecl.artifacts import write_text
from densecl.compare import formatting
from densecl.compare.changes import Changes
from densecl.compare.differences import Versus
from densecl.compare.summary import cautions, interval, percent, points, sentences, verdict
from densecl.compare.table import table
from densecl.report.templating import environment

LONGEST = 40  # rows of a list in a pull request: a comment may hold 65,536 characters
VALUE = 300  # characters of a value there


def write_comparison(found: Versus, changed: Changes, folder: Path) -> str:
    """Writes compare.html, compare.md and compare.csv to `folder`; the verdict and a plain table as
    text.
    """
    page = _page(found, changed)
    for name in ("compare.html", "compare.md"):
        whole = environment(name).get_template(name).render(page)
        write_text(folder / name, re.sub(r"\n{3,}", "\n\n", whole))
    text = table(found, changed).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_text(folder / "compare.csv", text)
    return _plain(page)


def _page(found: Versus, changed: Changes) -> dict[str, Any]:
    far = formatting.far(found)
    groups = [
        (
            mode,
            [
                formatting.entry(line, far, found.seeds.get(mode, ()))
                for line in found.lines
                if line.mode == mode
            ],
        )
        for mode in formatting.modes(found)
    ]
    return {
        "verdict": verdict(found),
        "sentences": sentences(found, changed),
        "cautions": cautions(found, changed),
        "sides": [formatting.side(found, letter) for letter in "AB"],
        "groups": groups,
        "far": percent(far),
        "level": f"{100 * found.values.confidence:g}",
        "samples": found.values.bootstrap_samples,
        "alpha": f"{1 - found.values.confidence:.3g}",
        "alone": [line for line in found.lines if len(line.alone) > 1],
        "costs": [formatting.cost(c) for c in changed.costs],
        "changed": changed,
        "alike": formatting.alike(changed),
        "data": [row for d in changed.data if (row := formatting.data(d, changed))],
        "models": formatting.models(changed),
        "width": formatting.WIDTH,
        "longest": LONGEST,
        "value": VALUE,
        "mean": MEAN,
        "point": points,
        "percent": percent,
        "interval": interval,
    }


def _plain(page: dict[str, Any]) -> str:
    rows = [("mode", "set", "A", "B", "B − A", "")]
    for mode, entries in page["groups"]:
        rows += [
            (mode, e.label, e.a, e.b, f"{e.change} {e.between}".strip(), _beside(e))
            for e in entries
        ]
    return "\n".join([*_aligned(rows), "", page["verdict"], *page["sentences"], *page["cautions"]])


def _beside(e: formatting.Entry) -> str:
    """The call, why a cell is missing and what of it is left out."""
    call, left = e.call if e.change != e.call else "", str(e.line.left_out)
    why = e.line.note if e.line.call == "missing" else ""
    return "; ".join(t for t in (call, why, f"left out: {left}" if left else "") if t)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
