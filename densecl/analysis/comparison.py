"""Evaluations and predictions of every planned cell -> the long table that all numbers of the
report are read from.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from densecl.analysis.cell_metrics import add_cell
from densecl.analysis.differences import MEAN, add_differences, add_mean
from densecl.analysis.results import BASELINE, Cell, Comparison, Row, read_seeds
from densecl.artifacts import ReportPlan

__all__ = ["BASELINE", "COLUMNS", "MEAN", "Comparison", "Row", "called", "compare", "table"]
COLUMNS = (
    "dataset",
    "control",
    "mode",
    "metric",
    "value",
    "low",
    "high",
    "images",
    "seeds",
    "note",
)


def compare(plan: ReportPlan, root: Path) -> Comparison:
    """Every planned cell, present or not, with its intervals, differences and tests."""
    cells: dict[tuple[str, str], Cell] = {
        (s, m): read_seeds(root, s, m, plan.seeds) for s in plan.datasets for m in plan.modes
    }
    found = Comparison(plan, cells)
    for dataset, mode in cells:
        add_cell(found, dataset, mode)
    for mode in plan.modes:
        add_mean(found, mode)
    for first, second in found.pairs:
        add_differences(found, first, second)
    if BASELINE not in plan.modes:
        for dataset, mode in cells:
            found.add(
                Row(
                    dataset,
                    "",
                    mode,
                    f"difference_to_{BASELINE}",
                    None,
                    note=f"mode {BASELINE} is not in modes",
                )
            )
    return found


def table(found: Comparison) -> pd.DataFrame:
    """The long table of `reports/comparison.csv`."""
    rows = [[getattr(row, name) for name in COLUMNS] for row in found.rows.values()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"images": "Int64"})


def called(found: Comparison, dataset: str, first: str, second: str) -> int:
    """+1 above, -1 below, 0 not told apart: the interval leaves 0 out and the corrected p is below
    the level.
    """
    row = found.get(dataset, first, f"difference_to_{second}")
    p = found.get(dataset, first, f"difference_to_{second}_p_holm")
    if (
        row is None
        or p is None
        or row.value is None
        or row.low is None
        or row.high is None
        or p.value is None
    ):
        return 0
    if p.value > 1 - found.plan.values.confidence or row.low <= 0 <= row.high:
        return 0
    return 1 if row.value > 0 else -1
