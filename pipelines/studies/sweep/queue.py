"""The trials of a sweep in Optuna's database: which are waiting, running and done.

One Optuna study per mode, with exactly as many trials as the budget: they are queued before the
first runs, so that no mode can get more. A trial's number is its index.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from densecl import paths
from densecl.config.params import Mode
from densecl.config.sweep_params import Choice, Interval, resolve_space, round_value
from densecl.errors import DenseclError
from densecl.runtime.locks import hold_lock
from densecl.seeding import derive_seed
from densecl.tuning.records import SweepPlan, TrialResult

CLAIM_TIMEOUT = 120.0  # s; a claim takes milliseconds
WORKER = "worker"  # user attribute of a trial: who runs it


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this process runs, with its values by dotted key."""

    mode: Mode
    index: int
    values: dict[str, Choice]


class TrialQueue:
    """Trials of all modes, shared with the processes that use the same database and folder."""

    def __init__(self, plan: SweepPlan, budget: int) -> None:
        self.plan, self.budget = plan, budget
        self.space = {
            mode: resolve_space(plan.sweep.space, plan.settings, mode) for mode in plan.modes
        }
        self.worker = name_worker()
        self._claimed: set[tuple[Mode, int]] = set()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with _translate_errors(plan), self._hold():
            storage = optuna.storages.RDBStorage(resolve_storage(plan))
            self.studies = {
                mode: optuna.create_study(
                    study_name=f"{plan.name}-{mode}",
                    storage=storage,
                    direction="maximize",
                    load_if_exists=True,
                )
                for mode in plan.modes
            }
            self._fill()

    def claim(self, take_over: bool) -> ClaimedTrial | None:
        """A trial that nobody runs, or None: first those that a process of this machine was
        killed in, then the next of the mode with the fewest. With `take_over`, at the end also
        those of other machines, which may have died.
        """
        with _translate_errors(self.plan), self._hold():
            return (
                self._claim_running(is_own=True)
                or self._claim_waiting()
                or (self._claim_running(is_own=False) if take_over else None)
            )

    def _claim_running(self, is_own: bool) -> ClaimedTrial | None:
        """A trial that a process of this machine has begun, or one of another machine."""
        for mode, study in self.studies.items():
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                holder = frozen.user_attrs.get(WORKER, self.worker)
                is_idle = (mode, frozen.number) not in self._claimed
                if is_idle and is_own == (holder == self.worker):
                    return self._start(mode, Trial(study, frozen._trial_id))
        return None

    def _claim_waiting(self) -> ClaimedTrial | None:
        waiting = {mode: self._count(mode, TrialState.WAITING) for mode in self.studies}
        mode = max(waiting, key=lambda name: waiting[name])
        return self._start(mode, self.studies[mode].ask()) if waiting[mode] else None

    def complete(self, result: TrialResult) -> None:
        """Tell the score by which values are chosen. Of a trial that was taken over from a machine
        that lives, the second score is the same.
        """
        with _translate_errors(self.plan):
            self.studies[result.mode].tell(result.index, result.top1_select, skip_if_finished=True)

    def count_unfinished(self) -> int:
        """Trials of all modes that wait or run."""
        states = (TrialState.WAITING, TrialState.RUNNING)
        return sum(self._count(mode, state) for mode in self.studies for state in states)

    def list_others(self) -> list[str]:
        """Trials that other machines run, with their names."""
        return [
            f"{mode} {frozen.number} on {frozen.user_attrs.get(WORKER, 'an unknown machine')}"
            for mode, study in self.studies.items()
            for frozen in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]

    def _fill(self) -> None:
        """Queue what is missing of the budget, of every mode."""
        for study in self.studies.values():
            queued = len(study.get_trials(deepcopy=False))
            if queued > self.budget:
                raise DenseclError(
                    f"--budget {self.budget}: sweep {self.plan.name} has {queued} trials of each "
                    "mode already; give at least as many, or choose another --name"
                )
            for _ in range(queued, self.budget):
                study.enqueue_trial({})

    def _start(self, mode: Mode, trial: Trial) -> ClaimedTrial:
        trial.set_user_attr(WORKER, self.worker)
        self._claimed.add((mode, trial.number))
        return ClaimedTrial(mode, trial.number, self._suggest(mode, trial))

    def _suggest(self, mode: Mode, trial: Trial) -> dict[str, Choice]:
        """The values of a trial; of the first none: it has those of the params."""
        values: dict[str, Choice] = {}
        for key, candidates in self.space[mode].items() if trial.number else ():
            # A stream per key, not per mode: all modes try the same learning rates.
            seed = derive_seed(self.plan.sweep.seed, "value", trial.number, key) % 2**32
            is_random = self.plan.sweep.sampler == "random"
            trial.study.sampler = (
                optuna.samplers.RandomSampler(seed)
                if is_random
                else optuna.samplers.TPESampler(seed=seed)
            )
            values[key] = suggest_value(trial, key, candidates)
        return values

    def _count(self, mode: Mode, state: TrialState) -> int:
        return len(self.studies[mode].get_trials(deepcopy=False, states=(state,)))

    @contextmanager
    def _hold(self) -> Iterator[None]:
        """One process at a time: of two that ask for the last trial, one would get a new one."""
        with hold_lock(paths.sweep_folder(self.plan.name) / "queue.lock", CLAIM_TIMEOUT):
            yield


def name_worker() -> str:
    """The machine, or the job of Slurm, which keeps its number when it is queued again."""
    job = os.environ.get("SLURM_JOB_ID")
    return socket.gethostname() if job is None else f"job-{job}"


def suggest_value(trial: Trial, key: str, candidates: Interval | tuple[Choice, ...]) -> Choice:
    """A value from what a key tries, rounded so that it can be read."""
    if not isinstance(candidates, Interval):
        return trial.suggest_categorical(key, candidates)
    low, high, log, is_integer = candidates
    if is_integer:
        return trial.suggest_int(key, int(low), int(high), log=log)
    value = round_value(trial.suggest_float(key, low, high, log=log))
    return min(max(value, low), high) if isinstance(value, float) else value


def resolve_storage(plan: SweepPlan) -> str:
    """Address of the database of a sweep."""
    file = paths.sweep_folder(plan.name) / "trials.db"
    return plan.sweep.storage or f"sqlite:///{file}"


@contextmanager
def _translate_errors(plan: SweepPlan) -> Iterator[None]:
    """Errors of the database as one line."""
    try:
        yield
    except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split())[:200]
        raise DenseclError(
            f"{os.path.basename(resolve_storage(plan))}: cannot be used as the database of "  # noqa: PTH119
            f"trials ({reason}); check sweep.storage"
        ) from None
