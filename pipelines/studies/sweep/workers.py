"""Trials in processes of this machine, several at a time."""

import multiprocessing
import os
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from densecl import paths
from densecl.artifacts import read_json, write_json
from densecl.errors import EXIT_RETRY, DenseclError, RetryLater
from densecl.runtime import cli
from densecl.runtime.hardware import CORE_SHARE_ENV, count_cores
from densecl.runtime.locks import hold_lock
from densecl.runtime.signals import exit_with_starter
from densecl.runtime.threads import set_openmp_defaults
from densecl.tuning.records import SweepPlan, TrialResult
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.studies.sweep.begin import build_trial
from pipelines.studies.sweep.queue import ClaimedTrial, TrialQueue

POLL = 0.1  # s
END_TIMEOUT = 60.0  # s; the trial of a sweep that was killed ends within STOP_TIMEOUT


class TrialWorkers:
    """Runs `jobs` trials at a time, each in a process of its own, until none is waiting.

    The processes are forked from one that has imported what a trial needs, which takes seconds.
    """

    def __init__(self, plan: SweepPlan, queue: TrialQueue, jobs: int, take_over: bool) -> None:
        self.plan, self.queue, self.jobs, self.take_over = plan, queue, jobs, take_over
        self.running: list[tuple[ClaimedTrial, ForkServerProcess]] = []
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["densecl.tuning.trial", "mlflow"])

    def run(self) -> None:
        """Raises RetryLater if interrupted, and DenseclError if a trial fails for any other reason
        than a loss that is not finite; the running trials save their state first.
        """
        set_openmp_defaults()
        os.environ[CORE_SHARE_ENV] = str(max(1, count_cores() // self.jobs))
        try:
            while self._start_waiting() or self.running:
                SIGNAL_FORWARDER.raise_if_signalled()
                self._collect()
                time.sleep(POLL)
        finally:
            for _, process in self.running:
                process.terminate()
            for _, process in self.running:
                process.join()

    def _start_waiting(self) -> bool:
        """Start trials while there is room; False if none is waiting."""
        while len(self.running) < self.jobs and not SIGNAL_FORWARDER.received:
            claim = self.queue.claim(self.take_over)
            if claim is None:
                return False
            self._start(claim)
        return True

    def _start(self, claim: ClaimedTrial) -> None:
        place = (self.plan.name, claim.mode, claim.index)
        write_json(
            paths.trial_plan(*place), build_trial(self.plan, claim.mode, claim.index, claim.values)
        )
        method = multiprocessing.get_start_method()
        process = self.processes.Process(target=run_trial_process, args=(*place, method))
        try:
            process.start()
        except (EOFError, ConnectionError):  # a signal has ended the fork server
            SIGNAL_FORWARDER.raise_if_signalled()
            raise
        self.running.append((claim, process))

    def _collect(self) -> None:
        for claim, process in list(self.running):
            if (status := process.exitcode) is None:
                continue
            self.running.remove((claim, process))
            place = (self.plan.name, claim.mode, claim.index)
            if status:
                SIGNAL_FORWARDER.raise_if_signalled()  # which has ended it, or the fork server
                raise explain_failure(claim, status, paths.trial_folder(*place))
            result = read_json(TrialResult, paths.trial_result(*place))
            self.queue.complete(result)
            print(describe_trial(result, self.queue.budget), flush=True)


def run_trial_process(sweep: str, mode: str, index: int, start_method: str) -> None:
    """As `python -m steps trial`; what it prints goes to the file `log` of the trial, its errors
    also to `errors`.
    """
    from steps.trial import main

    # Of the processes that load images; else they start as this one did, which takes seconds.
    multiprocessing.set_start_method(start_method, force=True)

    folder = paths.trial_folder(sweep, mode, index)
    (folder / "errors").unlink(missing_ok=True)
    os.environ[cli.ERROR_LOG_ENV] = str((folder / "errors").absolute())
    with (folder / "log").open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    cli.setup_process(stage=True)
    exit_with_starter()

    def run() -> None:
        with hold_lock(folder / "trial.lock", END_TIMEOUT):
            main(sweep, mode, index)

    cli.exit_immediately(cli.run_command(run))


def describe_trial(result: TrialResult, budget: int) -> str:
    """One line."""
    values = ", ".join(f"{key.partition('.')[2]} {value}" for key, value in result.values.items())
    score = "did not finish" if result.failure else f"top-1 {100 * result.top1_select:.1f} %"
    of_params = values or "the values of the params"
    return f"{result.mode} trial {result.index + 1} of {budget}: {score}; {of_params}"


def explain_failure(claim: ClaimedTrial, status: int, folder: Path) -> Exception:
    """Why a trial ended with a status that is not 0."""
    errors = folder / "errors"
    text = errors.read_text(encoding="utf-8").strip() if errors.exists() else ""
    reason = text.removeprefix("error: ") or f"status {status}, see {folder / 'log'}"
    name = f"trial {claim.index + 1} of {claim.mode}"
    if status < 0:
        return RetryLater(
            f"{name}: its process was killed, as where memory runs out; the same command resumes, "
            "with fewer --jobs in less memory"
        )
    return (RetryLater if status == EXIT_RETRY else DenseclError)(f"{name}: {reason}")
