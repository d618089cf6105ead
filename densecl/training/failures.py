"""What ends a training run early: one line with the last checkpoint and what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from densecl.errors import DenseclError, Interrupted, RetryLater
from densecl.runtime.signals import SIGNAL_HANDLER

if TYPE_CHECKING:
    from densecl.training.trainer import Trainer


class TrainingError(DenseclError):
    """A training run that cannot continue."""


@contextmanager
def explain_failures(trainer: Trainer) -> Iterator[None]:
    """Save on a signal; turn a failure into an error that says what to do.

    Raises:
        Interrupted: a signal arrived; the state is saved.
        TrainingError: memory is exhausted.
        RetryLater: a signal also stopped the loader's workers within a step.
    """
    try:
        yield
    except Interrupted as stop:
        with SIGNAL_HANDLER.defer_signals():
            trainer.saver.save()
        raise Interrupted(
            f"{stop}: stopped after step {trainer.steps_done} of {trainer.total_steps}; "
            f"{trainer.saver.describe_last()}; run the same command to resume"
        ) from None
    except RuntimeError as error:
        # A signal to all processes of a job ends the loader's workers too.
        if SIGNAL_HANDLER.received and "DataLoader worker" in str(error):
            raise RetryLater(
                f"stopped within a step; {trainer.saver.describe_last()}; run the same command to "
                f"resume"
            ) from None
        # The CPU's allocator has no exception of its own.
        if not isinstance(error, torch.OutOfMemoryError) and not any(
            phrase in str(error) for phrase in ("not enough memory", "can't allocate memory")
        ):
            raise
        images = trainer.batch_size // trainer.micro_batches
        raise TrainingError(
            f"out of memory with {images} images at a time ({str(error).splitlines()[0][:100]}); "
            f"double train.grad_accumulation (now {trainer.micro_batches}), halve train.batch_size "
            f"(now {trainer.batch_size}) or start more processes; "
            f"{trainer.saver.describe_last()}"
        ) from None
