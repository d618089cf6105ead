"""The long table of compare.csv: a row a number, fractions in [0, 1], costs in their units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from densecl.compare.changes import Changes
from densecl.compare.differences import Versus

if TYPE_CHECKING:
    from densecl.compare.deltas import Line

COLUMNS = (
    "dataset",
    "mode",
    "seeds",
    "metric",
    "a",
    "b",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "detectable",
    "call",
    "images",
    "only_a",
    "only_b",
    "changed",
    "relabelled",
    "partly",
    "note",
)
COUNTS = ("images", "only_a", "only_b", "changed", "relabelled", "partly")


def table(found: Versus, changed: Changes) -> pd.DataFrame:
    rows = [row for line in found.lines for row in _rows(line)]
    for cost in changed.costs:
        for name, a in cost.a.items():
            rows.append(
                {
                    "mode": cost.mode,
                    "seeds": " ".join(map(str, cost.seeds)),
                    "metric": name,
                    "a": a,
                    "b": cost.b[name],
                    "difference": cost.b[name] - a,
                    "note": "the same training" if cost.same else "",
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))


def _rows(line: Line) -> Iterator[dict[str, object]]:
    """The line, then its seeds, where it has several."""
    e, left = line.difference, line.left_out
    yield {
        "dataset": line.dataset,
        "mode": line.mode,
        "seeds": " ".join(map(str, line.seeds)),
        "metric": "top1",
        "a": line.a,
        "b": line.b,
        "p_holm": line.p_holm,
        "detectable": line.detectable,
        "call": line.call,
        "images": line.images,
        "only_a": left.only_a,
        "only_b": left.only_b,
        "changed": left.changed,
        "relabelled": left.relabelled,
        "partly": left.partly,
        "note": line.note,
        **({"difference": e.value, "low": e.low, "high": e.high, "p": e.p} if e else {}),
    }
    for each in line.alone if len(line.alone) > 1 else ():
        e = each.difference
        yield {
            "dataset": line.dataset,
            "mode": line.mode,
            "seeds": str(each.seed),
            "metric": "top1",
            "a": each.a,
            "b": each.b,
            "images": line.images,
            "call": "" if e else "identical",
            **({"difference": e.value, "low": e.low, "high": e.high, "p": e.p} if e else {}),
        }
