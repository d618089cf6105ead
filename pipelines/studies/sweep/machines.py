"""The trials of a sweep on the machines that run them; `TrialMachines` is their whole interface."""

import time
from collections.abc import Mapping
from typing import Protocol, Self

from densecl import paths
from densecl.artifacts import read_json, write_json
from densecl.tuning.records import SweepPlan, TrialResult
from pipelines.engines.display import StageDisplay
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.studies.sweep.begin import build_trial
from pipelines.studies.sweep.queue import ClaimedTrial, TrialQueue

POLL = 0.1  # s


class TrialMachines(Protocol):
    """Context manager. At its end, trials that still run save their state and stop, or are left to
    the cluster that has them.
    """

    size: int  # trials at a time

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, claim: ClaimedTrial, /) -> None:
        """Run a trial, whose plan is written."""

    def take_ended(self) -> list[ClaimedTrial]:
        """Trials that have ended since the last call and left a result; raises the error of one
        that has left none.
        """

    def describe(self) -> Mapping[str, str]:
        """Name of each running trial -> where it is; "" on this machine."""


def run_trials(
    plan: SweepPlan, queue: TrialQueue, machines: TrialMachines, take_over: bool
) -> None:
    """Run trials until none is waiting.

    Raises RetryLater if interrupted, and DenseclError if a trial fails for any other reason than a
    loss that is not finite.
    """
    with StageDisplay(queue.budget * len(plan.modes), "trials") as display, machines:
        while _start_waiting(plan, queue, machines, take_over) or machines.describe():
            SIGNAL_FORWARDER.raise_if_signalled()
            for claim in machines.take_ended():
                place = (plan.name, claim.mode, claim.index)
                result = read_json(TrialResult, paths.trial_result(*place))
                queue.complete(result)
                # Other machines finish some of them.
                display.finished = display.total - queue.count_unfinished() - 1
                display.report_end(paths.trial_name(*place), describe_trial(result, queue.budget))
            display.refresh(machines.describe())
            time.sleep(POLL)


def _start_waiting(
    plan: SweepPlan, queue: TrialQueue, machines: TrialMachines, take_over: bool
) -> bool:
    """Start trials while there is room; False if none is waiting."""
    while len(machines.describe()) < machines.size and not SIGNAL_FORWARDER.received:
        claim = queue.claim(take_over)
        if claim is None:
            return False
        trial = build_trial(plan, claim.mode, claim.index, claim.values)
        write_json(paths.trial_plan(plan.name, claim.mode, claim.index), trial)
        machines.start(claim)
    return True


def describe_trial(result: TrialResult, budget: int) -> str:
    """One line."""
    values = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in result.values.items())
    score = "did not finish" if result.failure else f"top-1 {100 * result.top1_select:.1f} %"
    of_params = values or "the values of the params"
    return f"{result.mode} trial {result.index + 1} of {budget}: {score}; {of_params}"
