"""What the trainings cost, beside what the method's description expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from densecl import paths
from densecl.analysis.comparison import BASELINE
from densecl.artifacts import Cost, ReportPlan
from densecl.report.charts import svg
from densecl.report.formatting import Number, Table

# What the method's description expects against classification-only training on one view: time,
# memory.
EXPECTED = {
    "dense": ("1.4 to 1.6 ×", "2 to 3 ×"),
    "global": ("1.2 to 1.3 ×", "1.5 ×"),
    "none": ("", ""),
}


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:,.0f}" if seconds >= 0.1 else f"{1000 * seconds:.3g}"


def _ratio(costs: Sequence[Cost], against: str) -> str:
    return f"{fmean(c.step_seconds / getattr(c, against) for c in costs):.2f}\u00a0×"


def cost_table(plan: ReportPlan, costs: Mapping[str, list[Cost]]) -> Table:
    groups = (
        (
            "Step time",
            ("ms", "against none, equal views", "against one view", "expected, one view"),
        ),
        ("Peak memory", ("GiB", "against none, equal views", "expected, one view")),
        ("Training", ("images/s", "minutes", "memory entries", "device")),
    )
    rows = []
    for mode in sorted(plan.modes, key=list(svg.COLOURS).index):
        several = costs[mode]
        files = ", ".join(str(paths.training(mode, s) / "cost.json") for s in plan.seeds)
        found = (
            _cost_entries(mode, several, costs.get(BASELINE, [])) if several else ["missing"] * 11
        )
        about = "" if several else f"no file {files}"
        rows.append(
            (mode, about, tuple(Number(t, "", files, missing=t == "missing") for t in found))
        )
    return Table(groups, tuple(rows))


def _cost_entries(mode: str, costs: Sequence[Cost], none: Sequence[Cost]) -> list[str]:
    def mean(name: str, of: Sequence[Cost] = costs) -> float:
        return fmean(getattr(c, name) for c in of)

    memory = f"{mean('peak_memory_bytes') / mean('peak_memory_bytes', none):.2f} ×" if none else "–"
    time, space = EXPECTED[mode]
    return [
        _milliseconds(mean("step_seconds")),
        _ratio(costs, "none_step_seconds"),
        _ratio(costs, "one_view_step_seconds"),
        time or "–",
        f"{mean('peak_memory_bytes') / 2**30:.2f}",
        memory,
        space or "–",
        f"{mean('images_per_second'):,.0f}",
        f"{mean('wall_seconds') / 60:.1f}",
        f"{mean('queue_size_effective'):,.0f}",
        ", ".join(dict.fromkeys(c.device for c in costs)),
    ]
