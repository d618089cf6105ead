"""Two training processes of one thread against one of two threads, same global batch."""

import multiprocessing
import os
import socket
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache, partial

import torch

from benchmarks.measure import BenchmarkRow, Call, format_ratio, format_seconds, measure_alternating
from benchmarks.steps import StepSetup, build_batch, build_train_step
from densecl import distributed
from densecl.datasets.views.batch import ViewBatch

ROUNDS = 7


@cache
def prepare_step(rank: int, size: int, port: int, mode: str) -> Call:
    """Join the process group and build the training step of this rank's share of the batch."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(2 // size)
    distributed.init_process_group()
    setup = StepSetup()
    rows = distributed.shard_epoch(range(setup.batch), setup.batch, 1)
    batch, train_step = build_batch(setup), build_train_step(setup, mode)
    local_batch = ViewBatch(*(column[rows] for column in batch))
    return partial(train_step, local_batch, train_step.objective.lambda_weight, 0)


def run_step(rank: int, size: int, port: int, mode: str) -> None:
    """One step; the first call of a process prepares it too."""
    prepare_step(rank, size, port, mode)()


def start_processes(stack: ExitStack, size: int, mode: str) -> Call:
    """A step by `size` processes, which end with the stack."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    pools = [stack.enter_context(ProcessPoolExecutor(1, context)) for _ in range(size)]
    stack.callback(lambda: [pool.submit(distributed.destroy_process_group) for pool in pools])

    def run_all() -> None:
        steps = [pool.submit(run_step, rank, size, port, mode) for rank, pool in enumerate(pools)]
        for step in steps:
            step.result()

    return run_all


def measure_processes() -> list[BenchmarkRow]:
    """Throughput of mode dense and of mode none."""
    rows, setup = [], StepSetup()
    for mode in ("dense", "none"):
        with ExitStack() as stack:
            calls = {str(size): start_processes(stack, size, mode) for size in (2, 1)}
            times = measure_alternating(calls, ROUNDS)
        measure = (
            f"{mode}: throughput of 2 processes x 1 thread / 1 process x 2 threads, "
            f"{setup.model}, batch {setup.batch}"
        )
        cells = format_seconds(times["2"]), format_seconds(times["1"])
        ratio = format_ratio(times["1"], times["2"])  # of throughput
        rows.append(BenchmarkRow("S1", measure, *cells, ratio, "≥ 0.9"))
    return rows
