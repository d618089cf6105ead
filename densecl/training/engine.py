"""Train one model: epochs of steps, a history row and a checkpoint each, then the export."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from densecl.contrast.objectives import build_objective, writes_per_image
from densecl.datasets.batch import ViewBatch
from densecl.datasets.views import EpochOrder, TwoViews, epoch_loader
from densecl.errors import DenseclError
from densecl.hardware import device, device_name, peak_memory, workers
from densecl.network.preprocessing import preprocessing
from densecl.network.vit import Backbone, build, grid
from densecl.params import GlobalContrast
from densecl.records import Cost, TrainPlan
from densecl.seeding import derive
from densecl.training import checkpoint
from densecl.training.cost import step_costs
from densecl.training.history import alarms, means
from densecl.training.schedules import build_optimizer, build_schedule
from densecl.training.step import Outcome, Stepper
from densecl.training.tracking import Monitor
from densecl.training.watching import Watch

LOOK_EVERY = 10  # steps between looks at the loss and at both losses' gradients: each look waits for the device


class TrainingError(DenseclError):
    """A training that cannot go on."""


@dataclass(frozen=True)
class Job:
    """All that one training reads; `validate` gives top-1 of each evaluation set for a model."""

    plan: TrainPlan
    seed: int
    frame: pd.DataFrame  # usable rows of the training manifest
    root: Path
    classes: list[str]
    fingerprint: str
    validate: Callable[[Backbone], dict[str, float]]


class Trainer:
    """State of one training; everything random in it follows from the seed."""

    def __init__(self, job: Job) -> None:
        self.job, settings = job, job.plan.train
        self.where = device()
        self.batch_size = min(settings.batch_size, len(job.frame))
        self.steps = min(settings.steps_per_epoch or len(job.frame), len(job.frame) // self.batch_size)
        self.model = build(job.plan.network, len(job.classes), job.seed, settings.drop_path).to(self.where)
        self.values = preprocessing(self.model)
        size = (self.values.input_size[1], self.values.input_size[2])
        self.views = TwoViews(job.frame.reset_index(drop=True), job.root, job.plan.data, size, job.seed)
        self.generator = torch.Generator().manual_seed(derive(job.seed, "samples"))
        contrast = job.plan.contrast
        rows = self._queue_size(contrast, math.prod(grid(self.model))) if contrast else 0
        self.objective = build_objective(contrast, self.model, rows, job.seed, self.generator).to(self.where)
        self.optimizer = build_optimizer(self.model, self.objective, settings)
        self.schedule = build_schedule(self.optimizer, settings, self.steps)
        self.stepper = Stepper(self.model, self.objective, self.optimizer, self.values, settings)
        self.watch = Watch(self.views, job.seed, self.where)
        self.history: list[dict[str, float]] = []

    def _queue_size(self, contrast: GlobalContrast, patches: int) -> int:
        """At most half of what one pass over the set writes: more would hold an image's older keys beside its newer ones."""
        asked = contrast.queue_size
        most = max(1, len(self.job.frame) * writes_per_image(contrast, patches) // 2)
        if asked > most:
            warnings.warn(
                f"contrast.queue_size: {asked} is more than half of what one pass over the training set writes; "
                f"cut to {most} for mode {self.job.plan.mode}",
                stacklevel=2,
            )
        return min(asked, most)

    @property
    def evaluated(self) -> Backbone:
        """The model that is validated and exported: the averaged weights where there are any."""
        return self.stepper.average.module if self.stepper.average else self.model

    def costs(self) -> dict[str, float]:
        """Step times of this mode beside plain classification, on the first batch."""
        items = list(EpochOrder(len(self.views), 0, self.job.seed, self.batch_size))
        return step_costs(
            self.model, self.objective, self.values, self.job.plan.train, self._batch([self.views[i] for i in items])
        )

    def _batch(self, items: list[ViewBatch]) -> ViewBatch:
        return ViewBatch(*(torch.stack(column).to(self.where) for column in zip(*items, strict=True)))

    def epoch(self, epoch: int, monitor: Monitor) -> dict[str, float]:
        """One epoch of steps; its means, by the names of history.csv."""
        self.model.train()
        begun, outcomes = time.perf_counter(), []
        for index, batch in enumerate(epoch_loader(self.views, epoch, self.batch_size, self.steps, workers())):
            step = epoch * self.steps + index
            self.schedule.step_update(step)
            weight = self.objective.lambda_at(step / self.steps)
            look = index % LOOK_EVERY == 0 or index == self.steps - 1
            progress = (step + 1) / (self.steps * self.job.plan.train.epochs)
            there = ViewBatch(*(t.to(self.where, non_blocking=True) for t in batch))
            outcomes.append(self.stepper.take(there, weight, step, progress, look))
            if look:
                self._look(outcomes[-1], epoch, index)
                monitor.step(
                    epoch, index + 1, (index + 1) * self.batch_size / (time.perf_counter() - begun), outcomes[-1]
                )
        return self._row(epoch, outcomes, time.perf_counter() - begun)

    def _look(self, outcome: Outcome, epoch: int, index: int) -> None:
        if not torch.isfinite(outcome.loss):
            raise TrainingError(
                f"loss is {float(outcome.loss)} at epoch {epoch}, step {index}: the last whole epoch is checkpointed; "
                "lower train.learning_rate, raise contrast.temperature or lengthen train.warmup_epochs"
            )

    def _row(self, epoch: int, outcomes: list[Outcome], seconds: float) -> dict[str, float]:
        row = {"epoch": epoch, **means(outcomes, self.job.plan.contrast is not None)}
        row |= self.watch.look(self.model, self.objective, self.values, self.job.plan.train.batch_size)
        row |= {
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            "images_per_second": self.steps * self.batch_size / seconds,
            "seconds": seconds,
            "peak_memory_bytes": peak_memory(self.where),
        }
        if self.job.plan.contrast is not None:
            last = (epoch * self.steps + self.steps - 1) / self.steps
            row |= {**self.objective.state(), "lambda_weight": self.objective.lambda_at(last)}
        return row

    def state(self, epoch: int) -> dict[str, Any]:
        """What a resumed training needs after `epoch` whole epochs."""
        average = self.stepper.average
        return {
            "epoch": epoch, "model": self.model.state_dict(), "objective": self.objective.state_dict(),
            "average": average.module.state_dict() if average else None,
            "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(), "history": self.history,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> int:
        """Load a state; the next epoch."""
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        if self.stepper.average:
            self.stepper.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        self.history = state["history"]
        return int(state["epoch"])


def fit(trainer: Trainer, checkpoints: Path, monitor: Monitor) -> tuple[Backbone, pd.DataFrame, Cost]:
    """The trained model with its history and cost; goes on from the checkpoint that an interrupted run left."""
    started, job = time.perf_counter(), trainer.job
    path = checkpoints / job.fingerprint / "last.pt"
    with torch.random.fork_rng():
        torch.manual_seed(derive(job.seed, "dropout"))
        measured = trainer.costs()
        before = checkpoint.load(path)
        first = trainer.restore(before) if before else 0
        if before:
            monitor.note(f"resumed after epoch {first} from {path}")
        for epoch in range(first, job.plan.train.epochs):
            row = trainer.epoch(epoch, monitor)
            row |= {f"top1/{name}": value for name, value in job.validate(trainer.evaluated).items()}
            trainer.history.append(row)
            checkpoint.save(trainer.state(epoch + 1), path)
            monitor.epoch(row)
            for alarm in alarms(row):
                monitor.note(f"WARNING: {alarm}")
    history = pd.DataFrame(trainer.history)
    return trainer.evaluated.eval(), history, _cost(trainer, history, measured, time.perf_counter() - started)


def _cost(trainer: Trainer, history: pd.DataFrame, measured: dict[str, float], seconds: float) -> Cost:
    return Cost(
        wall_seconds=seconds,
        images_per_second=float(history["images_per_second"].median()),
        peak_memory_bytes=int(history["peak_memory_bytes"].max()),
        device=device_name(trainer.where),
        views=2,
        batch_size=trainer.batch_size,
        queue_size_effective=trainer.objective.memory_rows,
        **measured,
    )
