"""Trials in processes of this machine, several at a time."""

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Self

from densecl import paths
from densecl.errors import EXIT_RETRY, DenseclError, RetryLater
from densecl.runtime import cli
from densecl.runtime.hardware import CORE_SHARE_ENV, count_cores
from densecl.runtime.locks import hold_lock
from densecl.runtime.progress import PROGRESS_ENV
from densecl.runtime.signals import exit_with_starter
from densecl.runtime.threads import set_openmp_defaults
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.studies.sweep.queue import ClaimedTrial

END_TIMEOUT = 60.0  # s; the trial of a sweep that was killed ends within STOP_TIMEOUT


class TrialProcesses:
    """Runs `size` trials at a time, each in a process of its own.

    The processes are forked from one that has imported what a trial needs, which takes seconds.
    """

    def __init__(self, sweep: str, size: int) -> None:
        self.sweep, self.size = sweep, size
        self.running: list[tuple[ClaimedTrial, ForkServerProcess]] = []
        self.processes = multiprocessing.get_context("forkserver")
        self.processes.set_forkserver_preload(["densecl.tuning.trial", "mlflow"])

    def __enter__(self) -> Self:
        set_openmp_defaults()
        os.environ[CORE_SHARE_ENV] = str(max(1, count_cores() // self.size))
        return self

    def __exit__(self, *exception: object) -> None:
        for _, process in self.running:
            process.terminate()
        for claim, process in self.running:
            process.join()
            self._get_progress_file(claim).unlink(missing_ok=True)

    def start(self, claim: ClaimedTrial) -> None:
        method = multiprocessing.get_start_method()
        progress = self._get_progress_file(claim)
        arguments = (self.sweep, claim.mode, claim.index, progress, method)
        process = self.processes.Process(target=run_trial_process, args=arguments)
        progress.parent.mkdir(parents=True, exist_ok=True)
        progress.write_bytes(b"")
        try:
            process.start()
        except (EOFError, ConnectionError):  # a signal has ended the fork server
            SIGNAL_FORWARDER.raise_if_signalled()
            raise
        self.running.append((claim, process))

    def take_ended(self) -> list[ClaimedTrial]:
        ended = []
        for claim, process in list(self.running):
            if (status := process.exitcode) is None:
                continue
            self.running.remove((claim, process))
            self._get_progress_file(claim).unlink(missing_ok=True)
            if status:
                SIGNAL_FORWARDER.raise_if_signalled()  # which has ended it, or the fork server
                folder = paths.trial_folder(self.sweep, claim.mode, claim.index)
                raise explain_failure(claim, status, folder)
            ended.append(claim)
        return ended

    def describe(self) -> dict[str, str]:
        return {paths.trial_name(self.sweep, c.mode, c.index): "" for c, _ in self.running}

    def _get_progress_file(self, claim: ClaimedTrial) -> Path:
        name = paths.trial_name(self.sweep, claim.mode, claim.index)
        return paths.stage_progress_file(name).absolute()


def run_trial_process(sweep: str, mode: str, index: int, progress: Path, start_method: str) -> None:
    """As `python -m steps trial`; what it prints goes to the file `log` of the trial, its errors
    also to `errors`.
    """
    from steps.trial import main

    # Of the processes that load images; else they start as this one did, which takes seconds.
    multiprocessing.set_start_method(start_method, force=True)

    folder = paths.trial_folder(sweep, mode, index)
    (folder / "errors").unlink(missing_ok=True)
    os.environ[cli.ERROR_LOG_ENV] = str((folder / "errors").absolute())
    os.environ[PROGRESS_ENV] = str(progress)
    with (folder / "log").open("ab") as log:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log.fileno(), stream.fileno())
    cli.setup_process(stage=True)
    exit_with_starter()

    def run() -> None:
        with hold_lock(folder / "trial.lock", END_TIMEOUT):
            main(sweep, mode, index)

    cli.exit_immediately(cli.run_command(run))


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
