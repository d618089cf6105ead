"""When a step does not fit into memory: what would, found by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densecl import distributed
from densecl.datasets.views.batch import ViewBatch

if TYPE_CHECKING:
    from densecl.training.trainer import Trainer


def no_room(error: BaseException) -> bool:
    """Has a device, or the CPU's allocator, refused memory?"""
    told = str(error)  # the CPU's allocator has no class of its own
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "not enough memory" in told
        or "can't allocate memory" in told
    )


def what_fits(trainer: Trainer, error: BaseException) -> str:
    """A sentence on the smallest change that lets a step fit: forward and backward passes are
    tried, nothing is updated.
    """
    told = (
        f"out of memory with {trainer.batch_size // trainer.parts} "
        f"images at a time ({str(error).splitlines()[0][:100]})"
    )
    if distributed.size() > 1:
        return (
            f"{told}; double train.grad_accumulation (now {trainer.parts}) or start more processes"
        )
    batch = trainer.first_batch()
    for parts in range(trainer.parts + 1, trainer.batch_size + 1):
        if trainer.batch_size % parts == 0 and _fits(
            trainer, ViewBatch(*(c.chunk(parts)[0] for c in batch))
        ):
            images = trainer.batch_size // parts
            return (
                f"{told}; train.grad_accumulation: {parts} fits ({images} images at a time, tried "
                f"here), "
                f"or train.batch_size: {images}"
            )
    return (
        f"{told}; not even one image fits: use a smaller "
        f"network.model_name or img_size, or contrast.queue_size"
    )


def _fits(trainer: Trainer, part: ViewBatch) -> bool:
    try:
        outcome, _ = trainer.stepper.score(part, trainer.objective.weight, look=True)
        outcome.loss.backward()
    except RuntimeError as error:
        if not no_room(error):
            raise
        return False
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
    return True
