"""What DistributedDataParallel adds to a step: with one rank, all of it is overhead."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch.distributed as dist

from benchmarks.measure import BenchmarkRow, Call, make_time_row, measure_alternating
from benchmarks.steps import StepSetup, build_batch, build_train_step
from densecl.runtime.hardware import get_device
from densecl.training.engine import wrap_in_ddp


@contextmanager
def join_alone() -> Iterator[None]:
    """A process group of this process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    backend = "nccl" if get_device().type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=address, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def build_step_of(setup: StepSetup, mode: str, wrap: bool) -> Call:
    """A training step; with `wrap`, by DDP as with several ranks."""
    step, batch = build_train_step(setup, mode), build_batch(setup)
    if wrap:
        step.engine.score = wrap_in_ddp(step.scorer)
    return partial(step, batch, step.objective.lambda_weight, 0)


def measure_ddp(setup: StepSetup, mode: str) -> list[BenchmarkRow]:
    """A step with DDP and one rank / the same step without it."""
    with join_alone():
        calls = {
            "DDP": build_step_of(setup, mode, wrap=True),
            "alone": build_step_of(setup, mode, wrap=False),
        }
        times = measure_alternating(calls, setup.rounds)
    measure = f"a step of {mode} with DDP and one rank / without, {setup.setting}"
    return [make_time_row("DDP", measure, times, "DDP", "alone", "≤ 1.03")]
