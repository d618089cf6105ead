"""The long table of compare.csv: one row per number, fractions in [0, 1], costs in their units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from densecl.compare.changes import ExperimentChanges
from densecl.compare.differences import ExperimentComparison

if TYPE_CHECKING:
    from densecl.compare.deltas import Delta

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


def build_table(comparison: ExperimentComparison, changes: ExperimentChanges) -> pd.DataFrame:
    rows = [row for delta in comparison.deltas for row in _iter_rows(delta)]
    for cost in changes.costs:
        for name, a in cost.a.items():
            rows.append(
                {
                    "mode": cost.mode,
                    "seeds": " ".join(map(str, cost.seeds)),
                    "metric": name,
                    "a": a,
                    "b": cost.b[name],
                    "difference": cost.b[name] - a,
                    "note": "the same training" if cost.is_same_run else "",
                }
            )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(dict.fromkeys(COUNTS, "Int64"))


def _iter_rows(delta: Delta) -> Iterator[dict[str, object]]:
    """The line, then its seeds, where it has several."""
    estimate, unmatched = delta.difference, delta.unmatched
    yield {
        "dataset": delta.dataset,
        "mode": delta.mode,
        "seeds": " ".join(map(str, delta.seeds)),
        "metric": "top1",
        "a": delta.a,
        "b": delta.b,
        "p_holm": delta.p_holm,
        "detectable": delta.detectable,
        "call": delta.call,
        "images": delta.images,
        "only_a": unmatched.only_a,
        "only_b": unmatched.only_b,
        "changed": unmatched.changed,
        "relabelled": unmatched.relabelled,
        "partly": unmatched.partly,
        "note": delta.note,
        **(
            {
                "difference": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "p": estimate.p,
            }
            if estimate
            else {}
        ),
    }
    for seed_delta in delta.per_seed if len(delta.per_seed) > 1 else ():
        estimate = seed_delta.difference
        yield {
            "dataset": delta.dataset,
            "mode": delta.mode,
            "seeds": str(seed_delta.seed),
            "metric": "top1",
            "a": seed_delta.a,
            "b": seed_delta.b,
            "images": delta.images,
            "call": "" if estimate else "identical",
            **(
                {
                    "difference": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                    "p": estimate.p,
                }
                if estimate
                else {}
            ),
        }
