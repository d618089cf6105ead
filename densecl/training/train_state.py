"""The state of a training run: content of a checkpoint, when it is saved, and messages of runs that
end early.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from densecl import distributed
from densecl.errors import DenseclError, Interrupted, RetryLater
from densecl.runtime.signals import SIGNAL_HANDLER
from densecl.training.checkpoint import CheckpointFolder, check_compatible
from densecl.training.step_metrics import split_steps, stack_steps

if TYPE_CHECKING:
    from densecl.monitoring.monitor import Monitor
    from densecl.training.trainer import Trainer, TrainingSpec


class TrainingError(DenseclError):
    """A training run that cannot continue."""


class DivergedError(TrainingError):
    """A loss or gradient that is not finite."""


def describe_compatibility(spec: "TrainingSpec") -> dict[str, Any]:
    """What a checkpoint must share with a training run to be resumed by it.

    The fingerprint covers everything; the rest tells where two runs differ.
    """
    plan = spec.plan
    return {
        "architecture": plan.network.model_name,
        "model_args": plan.network.model_args,
        "classes": spec.classes,
        "mode": plan.mode,
        "seed": spec.seed,
        "fingerprint": spec.fingerprint,
    }


def collect_state(trainer: "Trainer") -> dict[str, Any]:
    """All that a resumed run needs to end in the same bits.

    Schedule, image order and views follow from seed and `steps_done`. Every rank must call it;
    only that of rank 0 has weights.
    """
    return {
        "compatibility": describe_compatibility(trainer.spec),
        "steps_done": trainer.steps_done,
        **trainer.train_step.collect_state(),
        "generator": trainer.generator.get_state(),
        "history": trainer.history,
        "step_metrics": stack_steps(trainer.step_metrics),
        "epoch_seconds": trainer.epoch_seconds,
        "timings": trainer.timings,
        "wall_seconds": trainer.wall_seconds,
    }


class StateSaver:
    """Saves and restores a trainer's state; `folder` is None in all but the main process."""

    def __init__(
        self, trainer: "Trainer", folder: CheckpointFolder | None, monitor: "Monitor"
    ) -> None:
        self.trainer, self.folder, self.monitor = trainer, folder, monitor
        self.last_path = ""  # of the last good checkpoint
        self.last_position: tuple[int, int] | None = None  # of the trainer, when it was saved
        self.last_time = time.monotonic()

    @property
    def seconds_since_save(self) -> float:
        """Seconds since the last attempt to save, or since the start."""
        return time.monotonic() - self.last_time

    def describe_last(self) -> str:
        """A clause on the last good checkpoint."""
        if not self.last_path:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self.last_path}"

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Continue from a state; CheckpointError if it is that of another training run."""
        trainer = self.trainer
        check_compatible(state["compatibility"], describe_compatibility(trainer.spec), source)
        trainer.train_step.load_state(state)
        trainer.generator.set_state(state["generator"])
        trainer.history, trainer.timings = state["history"], state["timings"]
        trainer.step_metrics = split_steps(
            {name: column.to(trainer.device) for name, column in state["step_metrics"].items()}
        )
        trainer.epoch_seconds = state["epoch_seconds"]
        trainer.previous_seconds = state["wall_seconds"]
        self.last_path, self.last_position = source, trainer.position
        self.monitor.print_note(
            f"resumes after step {trainer.steps_done} of {trainer.total_steps} from {source}"
        )

    def save(self) -> None:
        """Save the state as of the last step, unless it is saved already.

        Every rank calls it after the same step, if the weights are sharded; else rank 0 suffices.
        A full or read-only disk is a warning. Raises TrainingError instead of saving a step
        whose loss is not finite.
        """
        trainer = self.trainer
        if self.last_position == trainer.position:
            return
        trainer.check_finite()
        self.last_time, self.last_position = time.monotonic(), trainer.position
        if self.folder is None and not trainer.train_step.engine.is_sharded:
            return
        state = collect_state(trainer)
        if self.folder is None:
            return
        try:
            self.last_path = str(self.folder.save(state))
        except OSError as error:
            self.monitor.print_note(
                f"WARNING: no checkpoint at step {trainer.steps_done}: {error.strerror}; "
                f"{self.describe_last()}; training continues"
            )


@contextmanager
def explain_failures(trainer: "Trainer") -> Iterator[None]:
    """Save on a signal; turn a failure into an error that says what to do.

    Raises:
        Interrupted: a signal arrived; the state is saved.
        TrainingError: memory is exhausted.
        RetryLater: a signal also stopped the loader's workers within a step, or another rank is
            gone.
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
        if distributed.is_lost_rank(error):
            raise distributed.build_lost_rank_error(error) from None
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
