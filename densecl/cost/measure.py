"""Measure what each mode costs against mode none and against classifying one view.

In training, some steps also compute diagnostics: they count by their share of an epoch.
"""

from collections.abc import Callable, Sequence
from statistics import fmean, median
from typing import Final, NamedTuple

from densecl.artifacts import CostPlan
from densecl.cost.load import compare_snapshots, take_snapshot
from densecl.cost.memory import measure_added_memory
from densecl.cost.ratio import CONFIDENCE, compute_ratio
from densecl.cost.result import CostReport, ModeCost, StepRatio
from densecl.cost.steps import (
    ONE_VIEW,
    Step,
    TrainingSize,
    build_steps,
    count_batch_images,
    count_timed_images,
)
from densecl.cost.timing import RARE_EVERY, Times, read_clock, time_rounds
from densecl.runtime.hardware import get_device, get_device_name, reuse_freed_memory
from densecl.runtime.threads import set_training_threads
from densecl.training.step_metrics import is_diagnostic_step

NONE: Final = "none"
CONTROL = "none again"
DIAGNOSTIC = " diagnostic"  # suffix of a mode's diagnostic step
Clock = Callable[[], float]


class StepRatios(NamedTuple):
    """Ratios per mode against `none` and against one view, and of `none` against itself."""

    against_none: dict[str, StepRatio]
    against_one_view: dict[str, StepRatio]
    control: StepRatio


def measure_cost(plan: CostPlan, size: TrainingSize, clock: Clock = read_clock) -> CostReport:
    """Time the steps of all modes in turn, and the memory of each in a process of its own."""
    load = take_snapshot().load
    reuse_freed_memory()
    set_training_threads(plan.train.threads)
    modes = list_modes(plan)
    memory = {kind: measure_added_memory(plan, size, kind) for kind in (*modes, ONE_VIEW)}
    steps, queue_sizes = build_timed_steps(plan, size)
    # The processes above are no children of this one: they would count as others.
    start = take_snapshot()._replace(load=load)
    share = compute_diagnostic_share(plan, size)
    times = time_rounds(
        steps,
        {mode + DIAGNOSTIC for mode in modes},
        plan.budget.seconds,
        lambda times: _is_precise(compute_ratios(times, modes, share), plan.budget.precision),
        clock,
    )
    ratios = compute_ratios(times, modes, share)
    return CostReport(
        modes={
            mode: ModeCost(
                seconds=median(times[mode]) * compute_diagnostic_factor(times, mode, share),
                against_none=ratios.against_none[mode],
                against_one_view=ratios.against_one_view[mode],
                memory_bytes=memory[mode],
                queue_size_effective=queue_sizes[mode],
            )
            for mode in modes
        },
        control=ratios.control,
        one_view_seconds=median(times[ONE_VIEW]),
        one_view_memory_bytes=memory[ONE_VIEW],
        rounds=len(times[NONE]),
        confidence=CONFIDENCE,
        images=count_timed_images(plan, size),
        batch_images=count_batch_images(plan, size),
        processes=plan.processes,
        device=get_device_name(get_device()),
        load=compare_snapshots(start, take_snapshot()),
    )


def list_modes(plan: CostPlan) -> list[str]:
    """The modes of the plan, and none."""
    return list(dict.fromkeys((*plan.modes, NONE)))


def build_timed_steps(plan: CostPlan, size: TrainingSize) -> tuple[dict[str, Step], dict[str, int]]:
    """Steps by name, and the entries of each mode's memory queue.

    None is there twice. It and its variants have no diagnostic step, which costs as much as an
    ordinary one.
    """
    images = count_timed_images(plan, size)
    steps: dict[str, Step] = {}
    queue_sizes: dict[str, int] = {}
    for mode in list_modes(plan):
        ordinary, diagnostic, queue_sizes[mode] = build_steps(plan, size, mode, images)
        steps[mode] = ordinary
        if plan.contrast[mode]:
            steps[mode + DIAGNOSTIC] = diagnostic
    steps[CONTROL] = build_steps(plan, size, NONE, images)[0]
    steps[ONE_VIEW] = build_steps(plan, size, ONE_VIEW, images)[0]
    return steps, queue_sizes


def compute_diagnostic_share(plan: CostPlan, size: TrainingSize) -> float:
    """Diagnostic steps per step of an epoch."""
    steps = size.images // min(plan.train.batch_size, size.images)
    steps = min(plan.train.steps_per_epoch or steps, steps)
    return fmean(is_diagnostic_step(index, steps) for index in range(steps))


def compute_diagnostic_factor(times: Times, mode: str, share: float) -> float:
    """Seconds of a mean step per second of an ordinary one.

    The error of this ratio counts by the share, and is neglected.
    """
    if mode + DIAGNOSTIC not in times:
        return 1.0
    ratio = compute_ratio(times[mode + DIAGNOSTIC], times[mode][::RARE_EVERY]).value
    return 1 + share * (ratio - 1)


def compute_ratios(times: Times, modes: Sequence[str], share: float) -> StepRatios:
    """All ratios, paired by round; the denominator `none` is the mean of its two steps."""
    none = [(a + b) / 2 for a, b in zip(times[NONE], times[CONTROL], strict=True)]
    seconds = {mode: times[mode] if mode != NONE else none for mode in modes}
    factors = {mode: compute_diagnostic_factor(times, mode, share) for mode in modes}
    return StepRatios(
        {mode: compute_ratio(seconds[mode], none, factors[mode]) for mode in modes},
        {mode: compute_ratio(seconds[mode], times[ONE_VIEW], factors[mode]) for mode in modes},
        compute_ratio(times[CONTROL], times[NONE]),
    )


def _is_precise(ratios: StepRatios, precision: float) -> bool:
    """Whether every interval is narrower than `precision`, relative to its ratio."""
    all_ratios = (
        *ratios.against_none.values(),
        *ratios.against_one_view.values(),
        ratios.control,
    )
    return all(ratio.width < precision * ratio.value for ratio in all_ratios)
