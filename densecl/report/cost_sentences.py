"""What the page says of cost beside the table: how it was measured, or why it could not be."""

from statistics import fmean

from densecl import paths
from densecl.analysis.comparison import BASELINE
from densecl.cost.result import MAX_CONTROL_WIDTH, CostReport, format_ratio
from densecl.pages.formatting import format_count, format_level
from densecl.report.training_results import TrainingResults

# The loader and validation also take time: less of a difference is no contradiction.
THROUGHPUT_TOLERANCE = 0.10


def describe_cost_problem(cost: CostReport | None) -> list[str]:
    """A sentence for the first screen if the cost was measured in vain."""
    if cost is None or cost.is_measured:
        return []
    if cost.control.low is None:
        reason = (
            f"the time (cost.seconds) was over after {format_count(cost.rounds, 'round')} of its "
            "steps, and an interval takes 8"
        )
    else:
        reason = (
            f"mode none took {format_ratio(cost.control)} times as long as itself, and a quiet "
            f"machine shows 1.00 in an interval narrower than {MAX_CONTROL_WIDTH:.2f}"
        )
    return [
        f"The cost could not be measured: {reason}. {describe_load(cost)} "
        "To measure again: dvc repro --force --single-item cost, then dvc repro."
    ]


def describe_load(cost: CostReport) -> str:
    """How busy the machine was meanwhile."""
    load = cost.load
    others = (
        ""
        if load.busy_cores is None
        else f"other processes used {load.busy_cores:.1f} of {load.cores} cores; "
    )
    return (
        f"Meanwhile {others}the load average was {load.start:.1f} at the start and {load.end:.1f} "
        "at the end."
    )


def describe_measurement(cost: CostReport | None) -> str:
    """How the figures of the table were measured."""
    if cost is None:
        return f"No file {paths.COST}: the stage cost has not run."
    processes = (
        f" Training shares each batch among {cost.processes} processes; one of them was measured, "
        "without the communication."
        if cost.processes > 1
        else ""
    )
    share = "" if cost.images == cost.batch_images else f" (training: {cost.batch_images})"
    return (
        f"Steps: {format_count(cost.rounds, 'round')} of all steps in turn, in one process on one "
        f"batch of {cost.images} images{share} in memory with a full memory queue; geometric means "
        f"of the rounds' ratios with {format_level(cost.confidence)} % intervals. Control, none "
        f"against itself: {format_ratio(cost.control)}. {describe_load(cost)}{processes}"
    )


def describe_contradictions(results: TrainingResults) -> list[str]:
    """Modes whose measured step does not fit the throughput of the training runs."""
    cost, baseline = results.cost, results.list_records(BASELINE)
    if cost is None or not cost.is_measured or not baseline:
        return []
    none_rate = fmean(record.images_per_second for record in baseline)
    clauses = []
    for mode, mode_cost in cost.modes.items():
        records = results.list_records(mode)
        devices = {record.device for record in (*records, *baseline)}
        if mode == BASELINE or not records or devices != {cost.device}:
            continue
        rate = fmean(record.images_per_second for record in records)
        step, seen = mode_cost.against_none, none_rate / rate
        low, high = (step.low or 0) - THROUGHPUT_TOLERANCE, (step.high or 0) + THROUGHPUT_TOLERANCE
        if not low <= seen <= high:
            clauses.append(
                f"a step of {mode} takes {format_ratio(step)} times as long as one of none, but "
                f"{mode} trained at {rate:,.0f} images/s and none at {none_rate:,.0f}, a factor "
                f"of {seen:.2f}"
            )
    if not clauses:
        return []
    return [
        f"Measured cost and training runs contradict each other: {'; '.join(clauses)}. The steps "
        "were measured alone; the trainings shared the machine with other stages or programs, or "
        "the loader and not the step was their limit."
    ]
