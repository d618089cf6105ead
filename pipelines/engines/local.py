"""Stages in processes of this machine."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, NamedTuple

from densecl.errors import RetryLater
from densecl.runtime.hardware import CORE_SHARE_ENV, count_cores
from densecl.runtime.signals import STOP_SIGNALS
from pipelines.engines.executor import Pool, StageOutcome


class WorkerProcess(NamedTuple):
    """A process that runs one stage after another, and the connection to it."""

    process: subprocess.Popen[bytes]
    connection: Connection


class LocalExecutor:
    """Context manager. Runs `jobs` stages at a time, each in a process that keeps its DVC
    repository open.

    A thread per process waits for its answers; the process ends when the connection does.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        # Signals are the main thread's. The processes inherit the mask and lift it once they
        # handle signals: Ctrl-C reaches the whole group, also a process that is just starting.
        self._threads = ThreadPoolExecutor(
            jobs, initializer=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        )
        self._own = threading.local()
        self._workers: list[WorkerProcess] = []

    def __enter__(self) -> "LocalExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for running stages, then end the processes."""
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.connection.close()
        for worker in self._workers:
            worker.process.wait()

    def get_pool(self, _name: str, _file: Path, /) -> Pool:
        return Pool("local", self.jobs, is_here=True)

    def joins(self, _name: str, _file: Path, /) -> bool:
        return False

    def submit(self, names: Sequence[str], file: Path) -> Future[dict[str, StageOutcome]]:
        return self._threads.submit(
            lambda: {name: self._call("update", name, file) for name in names}
        )

    def describe(self, _name: str, /) -> str:
        return ""

    def call(self, task: str, *arguments: Any) -> Future[Any]:
        """What a task of pipelines/engines/local_worker.py returns, from one of the processes."""
        return self._threads.submit(self._call, task, *arguments)

    def _call(self, task: str, *arguments: Any) -> Any:
        if not hasattr(self._own, "worker"):
            self._own.worker = _start_worker(_build_environment(self.jobs))
            self._workers.append(self._own.worker)
        worker: WorkerProcess = self._own.worker
        try:
            worker.connection.send((task, arguments))
            answer = worker.connection.recv()
        except (EOFError, OSError):
            raise _explain_end(str(arguments[0]), worker.process.wait()) from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


def _explain_end(name: str, status: int) -> Exception:
    if status >= 0:
        return RuntimeError(f"{name}: its process ended with status {status}; it says why above")
    return RetryLater(
        f"{name}: its process was killed, as where memory runs out; the same command resumes, with "
        f"fewer --jobs in less memory"
    )


def _build_environment(jobs: int) -> dict[str, str]:
    """Each stage computes in one thread (densecl/runtime/threads.py), so that stages side by side
    use all cores. Their processes that load images share the cores; no result depends on their
    number.
    """
    return {CORE_SHARE_ENV: str(max(1, count_cores() // jobs))} | os.environ


def _start_worker(environment: dict[str, str]) -> WorkerProcess:
    ours, theirs = Pipe()
    with theirs:  # only the process keeps it, so that each side notices the other's end
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.engines.local_worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    return WorkerProcess(process, ours)
