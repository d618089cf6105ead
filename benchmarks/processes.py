"""Two training processes of one thread against one of two threads, same global batch."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from benchmarks.measure import BenchmarkRow, format_ratio, format_seconds, measure_alternating
from benchmarks.steps import MODES, StepSetup, build_batch, build_train_step
from densecl import distributed
from densecl.datasets.views.batch import ViewBatch

ROUNDS = 7


def run_worker(rank: int, size: int, port: int, mode: str, connection: Connection) -> None:
    """A training process: one step of its share per message, until it receives None."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(2 // size)
    distributed.init_process_group()
    setup = StepSetup()
    local_rows = distributed.shard_epoch(range(setup.batch), setup.batch, 1)
    local_batch, train_step = (
        ViewBatch(*(column[local_rows] for column in build_batch(setup))),
        build_train_step(setup, mode),
    )
    connection.send("ready")
    while connection.recv():
        train_step(local_batch, 0.5 if MODES[mode] else 0.0, 0)
        connection.send("done")
    distributed.destroy_process_group()


def start_processes(size: int, mode: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step by so many processes, and what ends them."""
    context, connections, processes = multiprocessing.get_context("spawn"), [], []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(size):
        connection, worker_connection = context.Pipe()
        processes.append(
            context.Process(target=run_worker, args=(rank, size, port, mode, worker_connection))
        )
        processes[-1].start()
        connections.append(connection)
    for end in connections:
        end.recv()

    def run_step() -> None:
        for end in connections:
            end.send(True)
        for end in connections:
            end.recv()

    def stop_processes() -> None:
        for end, process in zip(connections, processes, strict=True):
            end.send(None)
            process.join()

    return run_step, stop_processes


def measure_rows() -> list[BenchmarkRow]:
    return [measure_mode(mode) for mode in ("dense", "none")]


def measure_mode(mode: str) -> BenchmarkRow:
    groups = {size: start_processes(size, mode) for size in (2, 1)}
    times = measure_alternating({str(size): step for size, (step, _) in groups.items()}, ROUNDS)
    for _, stop in groups.values():
        stop()
    return BenchmarkRow(
        "S1",
        f"{mode}: throughput of 2 processes x 1 thread / 1 process x 2 threads, "
        f"{StepSetup().model}, "
        f"batch {StepSetup().batch}",
        format_seconds(times["2"]),
        format_seconds(times["1"]),
        format_ratio(times["1"], times["2"]),
        "≥ 0.9",
    )


if __name__ == "__main__":
    for row in measure_rows():
        print("| " + " | ".join(row) + " |")
