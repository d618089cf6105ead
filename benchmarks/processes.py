"""Two training processes of one thread against one process of two threads: the same global batch,
in memory.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection

import torch

from benchmarks.measure import Row, alternate, ratio, shown
from benchmarks.steps import MODES, Setup, batch, stepper
from densecl import distributed
from densecl.datasets.views.batch import ViewBatch

ROUNDS = 7


def work(rank: int, size: int, port: int, mode: str, asked: Connection) -> None:
    """A training process: a step of its share whenever it is asked, until None comes."""
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(2 // size)
    distributed.start()
    setup = Setup()
    mine = distributed.share(range(setup.batch), setup.batch, 1)
    part, state = ViewBatch(*(column[mine] for column in batch(setup))), stepper(setup, mode)
    asked.send("ready")
    while asked.recv():
        state.take(part, 0.5 if MODES[mode] else 0.0, 0)
        asked.send("done")
    distributed.end()


def group(size: int, mode: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A step by so many processes, and what ends them."""
    context, ends, started = multiprocessing.get_context("spawn"), [], []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for rank in range(size):
        here, there = context.Pipe()
        started.append(context.Process(target=work, args=(rank, size, port, mode, there)))
        started[-1].start()
        ends.append(here)
    for end in ends:
        end.recv()

    def step() -> None:
        for end in ends:
            end.send(True)
        for end in ends:
            end.recv()

    def stop() -> None:
        for end, process in zip(ends, started, strict=True):
            end.send(None)
            process.join()

    return step, stop


def rows() -> list[Row]:
    return [row(mode) for mode in ("dense", "none")]


def row(mode: str) -> Row:
    groups = {size: group(size, mode) for size in (2, 1)}
    times = alternate({str(size): step for size, (step, _) in groups.items()}, ROUNDS)
    for _, stop in groups.values():
        stop()
    return Row(
        "S1",
        f"{mode}: throughput of 2 processes x 1 thread / 1 process x 2 threads, {Setup().model}, "
        f"batch {Setup().batch}",
        shown(times["2"]),
        shown(times["1"]),
        ratio(times["1"], times["2"]),
        "≥ 0.9",
    )


if __name__ == "__main__":
    for each in rows():
        print("| " + " | ".join(each) + " |")
