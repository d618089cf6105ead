"""The same calls beside one busy process per core and without, in processes of their own: the
number of threads and how they wait are fixed when torch is imported.

`python -m benchmarks.neighbours` is such a process.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.measure import BenchmarkRow, Call, Times, make_time_row, measure_alternating
from densecl import paths
from densecl.config.params import load_params
from densecl.runtime.hardware import count_cores
from densecl.runtime.threads import WAIT_POLICIES, set_openmp_defaults

ROUNDS = 5
QUERIES, MEMORY = 3200, 65536  # of InfoNCE, as in P1
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"  # ends with it
CALLS = {"step": "a step of none, default model", "infonce": "info_nce with diagnostics, as in P1"}


def measure_neighbours(threads: tuple[int, ...] = (1, 2)) -> list[BenchmarkRow]:
    """P18 with each number of threads."""
    return [row for number in threads for row in measure_threads(number)]


def measure_threads(threads: int) -> list[BenchmarkRow]:
    """P18 with `threads` threads, which wait as the environment or `set_openmp_defaults` says."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    set_openmp_defaults(environment)
    policy = " ".join(
        f"{name}={environment[name]}" for name in WAIT_POLICIES if name in environment
    )
    command = [sys.executable, "-m", "benchmarks.neighbours"]
    output = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    times: Times = json.loads(output)
    plural = "s" if threads > 1 else ""
    return [
        make_time_row(
            "P18",
            f"{name}, {threads} thread{plural}, {policy}: beside {count_cores()} busy processes / "
            "quiet",
            times,
            f"{call} busy",
            call,
            "≤ 2.2",
        )
        for call, name in CALLS.items()
    ]


def measure_calls() -> Times:
    """Seconds of each call, quiet and busy in turn."""
    from benchmarks.losses import build_step as build_loss
    from benchmarks.steps import StepSetup, build_step
    from densecl.runtime.hardware import reuse_freed_memory

    reuse_freed_memory()  # as in a training run
    params = load_params(paths.PARAMS)
    setup = StepSetup(
        params.network.model_name, params.network.model_args, batch=params.train.batch_size
    )
    quiet = {
        "step": build_step(setup, "none"),
        "infonce": build_loss("diagnostics", QUERIES, MEMORY),
    }
    with start_busy_processes() as run_busy:
        busy = {f"{name} busy": run_busy(call) for name, call in quiet.items()}
        return measure_alternating(quiet | busy, ROUNDS)


@contextmanager
def start_busy_processes() -> Iterator[Callable[[Call], Call]]:
    """A function that wraps a call so that one process per core computes meanwhile."""
    command = [sys.executable, "-c", BUSY]
    processes = [subprocess.Popen(command) for _ in range(count_cores())]

    def send(number: signal.Signals) -> None:
        for process in processes:
            process.send_signal(number)

    def run_busy(call: Call) -> Call:
        def run() -> None:
            send(signal.SIGCONT)
            call()
            send(signal.SIGSTOP)

        return run

    send(signal.SIGSTOP)
    try:
        yield run_busy
    finally:
        send(signal.SIGKILL)
        for process in processes:
            process.wait()


if __name__ == "__main__":
    print(json.dumps(measure_calls()))
