"""Tables of cost: of each mode, as the stage `cost` measured it, beside what the method's own
description states; and of each training run.
"""

import itertools
from collections.abc import Sequence
from statistics import fmean

from densecl import paths
from densecl.analysis.comparison import BASELINE
from densecl.artifacts import ReportPlan
from densecl.cost.result import CostReport, ModeCost
from densecl.monitoring.training_records import TrainingRecord
from densecl.report.formatting import TableCell, TableData, build_text_cells, sort_modes
from densecl.report.mode_settings import explain_other_batch
from densecl.report.training_results import TrainingResults

# What the method's description expects against classification-only training on one view: time,
# memory.
EXPECTED_COSTS = {
    "dense": ("1.4 to 1.6 ×", "2 to 3 ×"),
    "global": ("1.2 to 1.3 ×", "1.5 ×"),
    "none": ("–", "–"),
}
COST_FILE = str(paths.COST)


def build_cost_table(plan: ReportPlan, results: TrainingResults) -> TableData:
    """One row per mode; figures without a source are missing, with the reason."""
    groups = (
        (
            "Step time",
            ("ms", "against none, equal views", "against one view", "expected, one view"),
        ),
        (
            "Memory that training adds",
            ("MiB", "against none, equal views", "against one view", "expected, one view"),
        ),
        ("Training", ("images/s", "minutes", "memory entries", "device")),
    )
    rows = tuple(
        (mode, "", _build_mode_cells(plan, mode, results)) for mode in sort_modes(plan.modes)
    )
    return TableData(groups, rows)


def _build_mode_cells(
    plan: ReportPlan, mode: str, results: TrainingResults
) -> tuple[TableCell, ...]:
    expected_time, expected_memory = EXPECTED_COSTS.get(mode, ("–", "–"))  # of no variant
    cost = results.cost
    mode_cost = cost.modes.get(mode) if cost else None
    measured: tuple[tuple[TableCell, ...], ...]
    if cost is None or mode_cost is None:
        reason = explain_other_batch(plan, mode) if cost else ""
        gap = TableCell("missing", reason or f"no file {paths.COST}", missing=True)
        measured = (gap,) * 3, (gap,) * 3, (gap,) * 2
    else:
        device = cost.device
        entries = f"{mode_cost.queue_size_effective:,}"
        measured = (
            _build_time_cells(cost, mode_cost),
            _build_memory_cells(cost, mode_cost),
            build_text_cells(entries, device, source=COST_FILE),
        )
    times, memory, facts = measured
    return (
        *times,
        TableCell(expected_time),
        *memory,
        TableCell(expected_memory),
        *_build_throughput_cells(results.list_records(mode), results.no_record),
        *facts,
    )


def _build_time_cells(cost: CostReport, mode_cost: ModeCost) -> tuple[TableCell, ...]:
    if not cost.is_measured:
        obstacle = "too few rounds" if cost.control.low is None else "the control failed"
        return (TableCell("not measured", obstacle, COST_FILE, missing=True),) * 3
    milliseconds = 1000 * mode_cost.seconds
    text = f"{milliseconds:,.0f}" if milliseconds >= 100 else f"{milliseconds:.3g}"
    ratios = (mode_cost.against_none, mode_cost.against_one_view)
    return (
        TableCell(text, "", COST_FILE),
        *(TableCell(f"{r.value:.2f} ×", f"{r.low:.2f}–{r.high:.2f}", COST_FILE) for r in ratios),
    )


def _build_memory_cells(cost: CostReport, mode_cost: ModeCost) -> tuple[TableCell, ...]:
    added = mode_cost.memory_bytes
    if added is None:
        gap = TableCell("missing", "the process was killed", COST_FILE, missing=True)
        return (gap,) * 3
    peers = (cost.modes[BASELINE].memory_bytes, cost.one_view_memory_bytes)
    return build_text_cells(
        f"{added / 2**20:,.0f}",
        *(f"{added / peer:.2f} ×" if peer else "–" for peer in peers),
        source=COST_FILE,
    )


def _build_throughput_cells(
    records: Sequence[TrainingRecord], no_record: str
) -> tuple[TableCell, ...]:
    """Means over the seeds."""
    if not records:
        return (TableCell("missing", no_record, missing=True),) * 2
    return build_text_cells(
        f"{fmean(r.images_per_second for r in records):,.0f}",
        f"{fmean(r.wall_seconds for r in records) / 60:.1f}",
    )


def build_training_table(plan: ReportPlan, results: TrainingResults) -> TableData:
    """Hardware and times of each training run, or why they are not known."""
    columns = ("minutes", "images/s", "peak memory, GiB", "hardware")
    rows = []
    for run in itertools.product(plan.modes, plan.seeds):
        record = results.records.get(run)
        missing = TableCell("missing", results.no_record, missing=True)
        entries = _build_record_cells(record) if record else (missing,) * len(columns)
        rows.append((f"{run[0]}, seed {run[1]}", "", entries))
    return TableData((("", columns),), tuple(rows))


def _build_record_cells(record: TrainingRecord) -> tuple[TableCell, ...]:
    return build_text_cells(
        f"{record.wall_seconds / 60:.1f}",
        f"{record.images_per_second:,.0f}",
        f"{record.peak_memory_bytes / 2**30:.2f}",
        record.device,
    )
