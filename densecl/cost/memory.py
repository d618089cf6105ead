"""Peak memory that training a mode adds to an idle process, each in a process of its own."""

import multiprocessing
from multiprocessing.connection import Connection

import torch
from torch import nn

from densecl.artifacts import CostPlan
from densecl.cost.steps import TrainingSize, build_steps, count_batch_images
from densecl.runtime.hardware import (
    get_device,
    read_peak_memory,
    reset_peak_memory,
    reuse_freed_memory,
)
from densecl.runtime.threads import set_training_threads


def measure_added_memory(plan: CostPlan, size: TrainingSize, kind: str) -> int | None:
    """Bytes for model, optimizer, memory queue, batch and steps; None if the process was killed.

    The process is forked from a server that has imported all code and
    used none of it.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_added_memory, args=(sender, plan, size, kind))
    process.start()
    sender.close()
    try:
        added: int = receiver.recv()
    except EOFError:
        return None
    finally:
        process.join()
    return added


def _send_added_memory(sender: Connection, plan: CostPlan, size: TrainingSize, kind: str) -> None:
    reuse_freed_memory()
    set_training_threads(plan.train.threads)
    _load_libraries()
    reset_peak_memory(get_device())
    idle = read_peak_memory(get_device())
    ordinary, diagnostic, _ = build_steps(plan, size, kind, count_batch_images(plan, size))
    # From the second step on the optimizer has its state, and nothing grows.
    for step in (diagnostic, ordinary, diagnostic):
        step()
    sender.send(read_peak_memory(get_device()) - idle)


def _load_libraries() -> None:
    """Take a tiny step, since the first one also loads kernels and starts threads."""
    model = nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.Flatten(), nn.Linear(32, 8)).to(get_device())
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    model(torch.rand(2, 3, 4, 4, device=get_device())).square().mean().backward()
    optimizer.step()
