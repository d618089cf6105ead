"""When a step does not fit into memory: what would, found by trying."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from densecl import distributed
from densecl.datasets.views.batch import ViewBatch

if TYPE_CHECKING:
    from densecl.training.trainer import Trainer


def is_out_of_memory(error: BaseException) -> bool:
    """Has a device, or the CPU's allocator, refused memory?"""
    message = str(error)  # the CPU's allocator has no class of its own
    return (
        isinstance(error, torch.OutOfMemoryError)
        or "not enough memory" in message
        or "can't allocate memory" in message
    )


def suggest_batch_size(trainer: Trainer, error: BaseException) -> str:
    """A sentence on the smallest change that lets a step fit: forward and backward passes are
    tried, nothing is updated.
    """
    message = (
        f"out of memory with {trainer.batch_size // trainer.micro_batches} "
        f"images at a time ({str(error).splitlines()[0][:100]})"
    )
    if distributed.get_world_size() > 1:
        return (
            f"{message}; double train.grad_accumulation (now "
            f"{trainer.micro_batches}) or start more processes"
        )
    batch = trainer.load_first_batch()
    for micro_batches in range(trainer.micro_batches + 1, trainer.batch_size + 1):
        if trainer.batch_size % micro_batches == 0 and _try_micro_batch(
            trainer, ViewBatch(*(c.chunk(micro_batches)[0] for c in batch))
        ):
            images = trainer.batch_size // micro_batches
            return (
                f"{message}; train.grad_accumulation: {micro_batches} fits ({images} images at a "
                f"time, tried "
                f"here), "
                f"or train.batch_size: {images}"
            )
    return (
        f"{message}; not even one image fits: use a smaller "
        f"network.model_name or img_size, or contrast.queue_size"
    )


def _try_micro_batch(trainer: Trainer, micro_batch: ViewBatch) -> bool:
    try:
        metrics, _ = trainer.train_step.forward(
            micro_batch, trainer.objective.lambda_weight, log_diagnostics=True
        )
        metrics.loss.backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        trainer.optimizer.zero_grad(set_to_none=True)
    return True
