"""Where stages run: `StageExecutor` is the whole interface; `LocalExecutor` uses this machine."""

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Protocol

from densecl import paths
from densecl.runtime.progress import PROGRESS_ENV
from densecl.runtime.signals import exit_with_parent
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import StageRef, StageResult
from pipelines.stages.dvc_graph import StageGraph

# One thread per process: stages side by side use all cores, and threads never wait for each other.
STAGE_ENV = {"OMP_NUM_THREADS": "1", "DENSECL_WORKERS": "0"}


class StageOutcome(NamedTuple):
    """How a stage was brought up to date."""

    result: StageResult
    reference: StageRef
    seconds: float


class StageExecutor(Protocol):
    """Runs stages; each is submitted once all stages that it depends on are up to date."""

    def submit(self, name: str, file: Path) -> Future[StageOutcome]:
        """Bring a stage of `file` (a dvc.yaml) up to date; the future raises its error."""


class LocalExecutor:
    """Runs stages in `jobs` processes of this machine. Each keeps its DVC repository open."""

    def __init__(self, jobs: int) -> None:
        self.pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_start_worker)

    def submit(self, name: str, file: Path) -> Future[StageOutcome]:
        return self.pool.submit(_update_stage, name, file)

    def close(self) -> None:
        """Wait for running stages, then end the processes."""
        self.pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    # A process group of its own: Ctrl-C reaches the parent only, which passes it on once.
    os.setpgid(0, 0)
    SIGNAL_FORWARDER.install_handlers()
    exit_with_parent()
    for name, value in STAGE_ENV.items():
        os.environ.setdefault(name, value)


_open_graph = cache(StageGraph)


def _update_stage(name: str, file: Path) -> StageOutcome:
    started = time.monotonic()
    progress_file = paths.stage_progress_file(name)
    os.environ[PROGRESS_ENV] = str(progress_file.absolute())
    with _redirect_output(paths.stage_log(name)):
        try:
            result, reference = _open_graph(file).update_stage(name, progress_file.touch)
        finally:
            progress_file.unlink(missing_ok=True)
    return StageOutcome(result, reference, time.monotonic() - started)


@contextmanager
def _redirect_output(log: Path) -> Iterator[None]:
    """Send everything that this process and its children print to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with log.open("wb") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    try:
        yield
    finally:
        sys.stdout.flush()
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
