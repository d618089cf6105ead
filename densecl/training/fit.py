"""Epochs of steps, each with a history row; checkpoints on the way; an end that says what is
kept.
"""

from __future__ import annotations

import time
from typing import Any

import pandas as pd
import torch

from densecl import distributed
from densecl.artifacts import TrainingCost
from densecl.errors import Interrupted, RetryLater
from densecl.monitoring.monitor import Monitor
from densecl.network.vit import Backbone
from densecl.runtime.hardware import get_device_name
from densecl.runtime.signals import SIGNAL_HANDLER
from densecl.training.checkpoint import CheckpointFolder
from densecl.training.epoch_metrics import find_training_warnings
from densecl.training.out_of_memory import is_out_of_memory, suggest_batch_size
from densecl.training.trainer import NonFiniteLossError, Trainer, TrainingError

VALIDATION_RISK = (
    30.0  # s of steps that a kill during a validation may cost, however rare the checkpoints
)


class Fit:
    """One training from where its checkpoints stand to its last epoch."""

    def __init__(self, trainer: Trainer, kept: CheckpointFolder | None, monitor: Monitor) -> None:
        self.trainer, self.kept, self.monitor = trainer, kept, monitor
        self.costs: dict[str, float] = {}
        self.wall, self.begun = (
            0.0,
            time.monotonic(),
        )  # s: of the runs before this one; start of this one
        self.saved, self.last = (
            time.monotonic(),
            "",
        )  # when and where the last checkpoint was written
        self.saved_at: tuple[int, int] | None = None  # epochs and steps of the next one done then

    def resume(self, state: dict[str, Any], source: str) -> None:
        """Go on from a state."""
        self.trainer.restore_state(state, source)
        self.costs, self.wall, self.saved_at = state["costs"], float(state["wall"]), self._at()
        self.last = source
        self.monitor.print_note(
            f"goes on after step {self.trainer.steps_done} of {self.total} from {source}"
        )

    @property
    def total(self) -> int:
        return self.trainer.steps_per_epoch * self.trainer.spec.plan.train.epochs

    def run(self) -> None:
        """To the last epoch. Stops early with Interrupted or TrainingError, checkpointed."""
        try:
            self._epochs()
        except NonFiniteLossError as error:
            raise TrainingError(
                f"{error}; {self._where()}; lower train.learning_rate, raise "
                f"contrast.temperature, lengthen "
                "train.warmup_epochs or lower train.grad_clip"
            ) from None
        except RuntimeError as error:
            if SIGNAL_HANDLER.received and "DataLoader worker" in str(
                error
            ):  # whoever asked the trainer to stop ended its loader too
                raise RetryLater(
                    f"stopped within a step; {self._where()}; the same command goes on"
                ) from None
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"{suggest_batch_size(self.trainer, error)}; {self._where()}"
            ) from None

    def result(self) -> tuple[Backbone, pd.DataFrame, TrainingCost]:
        """The trained model with its history and cost, in the first process."""
        history = pd.DataFrame(self.trainer.history)
        return self.trainer.eval_model.eval(), history, self._cost(history)

    def _epochs(self) -> None:
        try:
            with torch.random.fork_rng():
                self.costs = self.costs or self.trainer.measure_costs()
                while len(self.trainer.history) < self.trainer.spec.plan.train.epochs:
                    self._epoch()
        except Interrupted as stop:
            with SIGNAL_HANDLER.defer_signals():
                self.save()
            raise Interrupted(
                f"{stop}: stopped after step {self.trainer.steps_done} of {self.total}; "
                f"{self._where()}; the same command goes on"
            ) from None

    def _epoch(self) -> None:
        trainer = self.trainer
        with (
            SIGNAL_HANDLER.defer_signals()
        ):  # a signal waits for the end of a step, and all processes stop after the same one
            trainer.train_epoch(self.monitor, self._after_step)
        SIGNAL_HANDLER.raise_if_signalled()
        trainer.check_finite()
        if self._age() > VALIDATION_RISK:
            self.save()
        row = trainer.build_epoch_row() if distributed.is_main_process() else {}
        row |= {
            f"top1/{name}": value
            for name, value in trainer.spec.validate(trainer.eval_model).items()
        }
        with SIGNAL_HANDLER.defer_signals():
            trainer.end_epoch(row)
            if distributed.is_main_process():
                self.monitor.log_epoch(row)
                self.save()
                for alarm in find_training_warnings(row):
                    self.monitor.print_note(f"WARNING: {alarm}")
        SIGNAL_HANDLER.raise_if_signalled()

    def _after_step(self) -> None:
        if self._age() > self.trainer.spec.plan.train.checkpoint_minutes * 60:
            self.save()
        if distributed.any_rank(bool(SIGNAL_HANDLER.received)):
            SIGNAL_HANDLER.raise_if_signalled()
            raise Interrupted("another process was asked to stop")

    def save(self) -> None:
        """Keep the state as of the last whole step. A disk that refuses is told of; the training
        goes on.
        """
        if self.kept is None or self.saved_at == self._at():
            return
        self.trainer.check_finite()
        state = self.trainer.collect_state() | {
            "costs": self.costs,
            "wall": self.wall + time.monotonic() - self.begun,
        }
        self.saved = time.monotonic()
        try:
            self.last = str(self.kept.save(state))
            self.saved_at = self._at()
        except OSError as error:
            self.monitor.print_note(
                f"WARNING: no checkpoint at step {self.trainer.steps_done}: {error.strerror}; "
                f"{self._where()}; training goes on"
            )

    def _at(self) -> tuple[int, int]:
        return len(self.trainer.history), len(self.trainer.step_metrics)

    def _age(self) -> float:
        return time.monotonic() - self.saved

    def _where(self) -> str:
        return (
            f"the last good checkpoint is {self.last}"
            if self.last
            else "there is no checkpoint yet"
        )

    def _cost(self, history: pd.DataFrame) -> TrainingCost:
        trainer = self.trainer
        return TrainingCost(
            wall_seconds=self.wall + time.monotonic() - self.begun,
            images_per_second=float(history["images_per_second"].median()),
            peak_memory_bytes=int(history["peak_memory_bytes"].max()),
            device=get_device_name(trainer.device),
            views=2,
            batch_size=trainer.batch_size,
            queue_size_effective=trainer.objective.memory_size,
            **self.costs,
        )
