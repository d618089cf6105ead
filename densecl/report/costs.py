"""Costs of the training runs: of each run, and of the modes beside those that the method's
description states.
"""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from densecl import paths
from densecl.analysis.comparison import BASELINE
from densecl.artifacts import ReportPlan, TrainingCost, read_json
from densecl.report.charts.svg import COLOURS
from densecl.report.formatting import TableCell, TableData, build_text_cells

# What the method's description expects against classification-only training on one view: time,
# memory.
EXPECTED_COSTS = {
    "dense": ("1.4 to 1.6 ×", "2 to 3 ×"),
    "global": ("1.2 to 1.3 ×", "1.5 ×"),
    "none": ("", ""),
}


def _format_milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def _format_ratio(costs: Sequence[TrainingCost], reference: str) -> str:
    return f"{fmean(c.step_seconds / getattr(c, reference) for c in costs):.2f}\u00a0×"


def build_cost_table(plan: ReportPlan, costs: Mapping[str, list[TrainingCost]]) -> TableData:
    groups = (
        (
            "Step time",
            ("ms", "against none, equal views", "against one view", "expected, one view"),
        ),
        ("Peak memory", ("GiB", "against none, equal views", "expected, one view")),
        ("Training", ("images/s", "minutes", "memory entries", "device")),
    )
    rows = []
    for mode in sorted(plan.modes, key=list(COLOURS).index):
        mode_costs = costs[mode]
        files = ", ".join(str(paths.training_folder(mode, s) / "cost.json") for s in plan.seeds)
        texts = (
            _format_costs(mode, mode_costs, costs.get(BASELINE, []))
            if mode_costs
            else ["missing"] * 11
        )
        note = "" if mode_costs else f"no file {files}"
        rows.append(
            (mode, note, tuple(TableCell(t, "", files, missing=t == "missing") for t in texts))
        )
    return TableData(groups, tuple(rows))


def _format_costs(
    mode: str, costs: Sequence[TrainingCost], baseline_costs: Sequence[TrainingCost]
) -> list[str]:
    def compute_mean(name: str, records: Sequence[TrainingCost] = costs) -> float:
        return fmean(getattr(c, name) for c in records)

    memory = "–"
    if baseline_costs:
        baseline_memory = compute_mean("peak_memory_bytes", baseline_costs)
        memory = f"{compute_mean('peak_memory_bytes') / baseline_memory:.2f} ×"
    expected_time, expected_memory = EXPECTED_COSTS[mode]
    return [
        _format_milliseconds(compute_mean("step_seconds")),
        _format_ratio(costs, "none_step_seconds"),
        _format_ratio(costs, "one_view_step_seconds"),
        expected_time or "–",
        f"{compute_mean('peak_memory_bytes') / 2**30:.2f}",
        memory,
        expected_memory or "–",
        f"{compute_mean('images_per_second'):,.0f}",
        f"{compute_mean('wall_seconds') / 60:.1f}",
        f"{compute_mean('queue_size_effective'):,.0f}",
        ", ".join(dict.fromkeys(c.device for c in costs)),
    ]


def build_training_table(plan: ReportPlan, root: Path) -> TableData:
    """Hardware and times of each training run, or a note that cost.json is missing."""
    columns = ("minutes", "images/s", "ms a step", "peak memory, GiB", "hardware")
    rows = []
    for mode, seed in itertools.product(plan.modes, plan.seeds):
        file = paths.training_folder(mode, seed) / "cost.json"
        missing = TableCell("missing", f"no file {file}", missing=True)
        entries = (
            _build_cost_cells(read_json(TrainingCost, root / file), str(file))
            if (root / file).is_file()
            else (missing,) * len(columns)
        )
        rows.append((f"{mode}, seed {seed}", "", entries))
    return TableData((("", columns),), tuple(rows))


def _build_cost_cells(cost: TrainingCost, file: str) -> tuple[TableCell, ...]:
    return build_text_cells(
        f"{cost.wall_seconds / 60:.1f}",
        f"{cost.images_per_second:,.0f}",
        f"{1000 * cost.step_seconds:.3g}",
        f"{cost.peak_memory_bytes / 2**30:.2f}",
        cost.device,
        source=file,
    )
