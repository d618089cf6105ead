"""The stage `cost` of the pipeline on this device, as `reports/cost.json` states it."""

from benchmarks.measure import MEBIBYTE, BenchmarkRow
from benchmarks.steps import CLASSES, MODES, StepSetup
from densecl.artifacts import CostPlan
from densecl.config.params import CostParams
from densecl.cost.result import ModeCost, StepRatio, format_ratio


def measure_cost_stage(setup: StepSetup, seconds: float) -> list[BenchmarkRow]:
    """Time and memory of each mode against `none`, and the control: a second `none`."""
    from densecl.cost.measure import measure_cost
    from densecl.cost.steps import TrainingSize

    plan = CostPlan(
        modes=tuple(MODES),
        network=setup.network,
        train=setup.train,
        contrast=MODES,
        processes=1,
        budget=CostParams(seconds=seconds),
    )
    cost = measure_cost(plan, TrainingSize(images=setup.batch * 100, classes=CLASSES))
    of = f"stage cost, {cost.rounds} rounds, {setup.setting}"
    none = cost.modes["none"]
    rows = [
        make_ratio_row(f"{mode} / none, {of}", cost.modes[mode].against_none, "-")
        for mode in ("dense", "global")
    ]
    rows.append(make_ratio_row(f"none / none, {of}", cost.control, "holds 1.00"))
    memory = [
        make_memory_row(f"memory of {mode}, {of}", cost.modes[mode], none)
        for mode in ("dense", "global")
    ]
    return [*rows, *memory]


def make_ratio_row(measure: str, ratio: StepRatio, target: str) -> BenchmarkRow:
    """A ratio with the interval of the cost stage."""
    return BenchmarkRow("COST", measure, "-", "-", format_ratio(ratio), target)


def make_memory_row(measure: str, mode: ModeCost, none: ModeCost) -> BenchmarkRow:
    """Memory that training a mode adds to an idle process, relative to none."""
    ours, theirs = (cost.memory_bytes or 0 for cost in (mode, none))
    cells = f"{ours / MEBIBYTE:,.0f} MiB", f"{theirs / MEBIBYTE:,.0f} MiB"
    return BenchmarkRow("COST", measure, *cells, f"{ours / max(theirs, 1):.3f}", "-")
