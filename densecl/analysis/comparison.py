"""Build the long comparison table, from which all numbers of the report are read."""

from pathlib import Path

import pandas as pd

from densecl.analysis.cell_metrics import add_cell_metrics
from densecl.analysis.corruption_error import add_corruption_errors
from densecl.analysis.differences import SHIFTED_MEAN, add_differences, add_shifted_mean
from densecl.analysis.other_models import add_other_models
from densecl.analysis.probe_results import add_probe_metrics, read_probe_results
from densecl.analysis.results import (
    BASELINE,
    Comparison,
    MetricRow,
    ProbeResults,
    SeedResults,
    read_seed_results,
)
from densecl.artifacts import ReportPlan
from densecl.cost.result import CostReport

__all__ = [
    "BASELINE",
    "COLUMNS",
    "SHIFTED_MEAN",
    "Comparison",
    "MetricRow",
    "build_comparison_table",
    "compare_modes",
    "get_significance",
]
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


def compare_modes(plan: ReportPlan, root: Path, cost: CostReport | None = None) -> Comparison:
    """Read every planned cell and compute its intervals, differences and tests; missing cells state
    a reason. Comparisons of cost count in the first screen's family of tests.
    """
    cells: dict[tuple[str, str], SeedResults] = {
        (s, m): read_seed_results(root, s, m, plan.seeds) for s in plan.datasets for m in plan.modes
    }
    probes: dict[tuple[str, str], ProbeResults] = {
        (p, m): read_probe_results(root, p, m, plan.seeds) for p in plan.probes for m in plan.modes
    }
    comparison = Comparison(plan, cells, probes=probes, cost=cost)
    for dataset, mode in cells:
        add_cell_metrics(comparison, dataset, mode)
    add_probe_metrics(comparison)
    for mode in plan.modes:
        add_shifted_mean(comparison, mode)
    add_differences(comparison)
    add_corruption_errors(comparison)
    add_other_models(comparison, root)
    if BASELINE not in plan.modes:
        for dataset, mode in cells:
            comparison.add_row(
                MetricRow(
                    dataset,
                    "",
                    mode,
                    f"difference_to_{BASELINE}",
                    None,
                    note=f"mode {BASELINE} is not in modes",
                )
            )
    return comparison


def build_comparison_table(comparison: Comparison) -> pd.DataFrame:
    """The long table of `reports/comparison.csv`."""
    rows = [[getattr(row, name) for name in COLUMNS] for row in comparison.rows.values()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"images": "Int64"})


def get_significance(comparison: Comparison, dataset: str, mode: str, baseline: str) -> int:
    """+1 if significantly above the baseline, -1 if significantly below, otherwise 0.

    Significant: the simultaneous interval of its family excludes 0, which is the same as an
    adjusted p-value below the level.
    """
    row = comparison.get_row(dataset, mode, f"difference_to_{baseline}_simultaneous")
    if row is None or row.low is None or row.high is None or row.low <= 0 <= row.high:
        return 0
    return 1 if row.low > 0 else -1
