"""The state of one training, and its steps; `fit` puts them together."""

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

from densecl import distributed
from densecl.artifacts import TrainPlan
from densecl.config.params import GlobalContrast
from densecl.contrast.dense import build_objective, writes_per_image
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.two_views import EpochOrder, TwoViews, epoch_loader
from densecl.errors import DenseclError
from densecl.monitoring.monitor import Monitor
from densecl.network.preprocessing import preprocessing
from densecl.network.vit import Backbone, build, grid
from densecl.runtime.hardware import device, peak_memory, workers
from densecl.seeding import derive
from densecl.training import checkpoint
from densecl.training.diagnostics.features import Watch
from densecl.training.epoch_metrics import means, pack, unpack
from densecl.training.optim import build_optimizer, build_schedule
from densecl.training.step import Outcome, Stepper
from densecl.training.step_cost import step_costs

# steps between looks at the loss and at both losses' gradients: each look waits for the device
LOOK_EVERY = 10


class TrainingError(DenseclError):
    """A training that cannot go on."""


class NotFinite(Exception):
    """A step after which nothing can be learned; `fit` adds what is kept and what to try."""


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
        self.batch_size, self.parts = (
            min(settings.batch_size, len(job.frame)),
            settings.grad_accumulation,
        )
        if self.batch_size % (self.parts * distributed.size()) and distributed.size() > 1:
            raise TrainingError(
                f"a batch of {self.batch_size} images in {self.parts} parts cannot be shared by "
                f"{distributed.size()} processes "
                "alike; make train.batch_size a multiple of grad_accumulation x processes, and no "
                "larger than the set"
            )
        self.steps = min(
            settings.steps_per_epoch or len(job.frame), len(job.frame) // self.batch_size
        )
        self.model = build(job.plan.network, len(job.classes), job.seed, settings.drop_path).to(
            self.where
        )
        self.values = preprocessing(self.model)
        size = (self.values.input_size[1], self.values.input_size[2])
        self.views = TwoViews(
            job.frame.reset_index(drop=True), job.root, job.plan.data, size, job.seed
        )
        self.generator = torch.Generator().manual_seed(derive(job.seed, "samples"))
        contrast = job.plan.contrast
        rows = self._queue_size(contrast, math.prod(grid(self.model))) if contrast else 0
        self.objective = build_objective(contrast, self.model, rows, job.seed, self.generator).to(
            self.where
        )
        self.optimizer = build_optimizer(self.model, self.objective, settings)
        self.schedule = build_schedule(self.optimizer, settings, self.steps)
        self.stepper = Stepper(self.model, self.objective, self.optimizer, self.values, settings)
        self.watch = Watch(self.views, job.seed, self.where)
        self.history: list[dict[str, float]] = []  # a row an epoch
        self.outcomes: list[Outcome] = []  # of the epoch under way, a step each
        self.checked = 0  # of them, known to be finite
        self.seconds = 0.0  # spent on those steps, over all interruptions

    def _queue_size(self, contrast: GlobalContrast, patches: int) -> int:
        """At most half of what one pass over the set writes: more would hold an image's older keys
        beside its newer ones.
        """
        asked = contrast.queue_size
        most = max(1, len(self.job.frame) * writes_per_image(contrast, patches) // 2)
        if asked > most:
            warnings.warn(
                f"contrast.queue_size: {asked} is more than half of what one pass over the "
                f"training set writes; "
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
        return step_costs(
            self.model, self.objective, self.values, self.job.plan.train, self.first_batch()
        )

    def first_batch(self) -> ViewBatch:
        """Views of this process's share of the first batch."""
        order = EpochOrder(len(self.views), 0, self.job.seed, self.batch_size)
        items = [self.views[i] for i in distributed.share(order.items, self.batch_size, self.parts)]
        return ViewBatch(
            *(torch.stack(column).to(self.where) for column in zip(*items, strict=True))
        )

    @property
    def done(self) -> int:
        """Steps done, of all epochs: where the sampler stands, since order and views follow from
        seed and epoch.
        """
        return len(self.history) * self.steps + len(self.outcomes)

    def epoch(self, monitor: Monitor, after: Callable[[], object]) -> None:
        """The steps that are left of the current epoch; `after` is called when one is whole."""
        epoch, first = len(self.history), len(self.outcomes)
        if first == self.steps:
            return
        self.model.train()
        before, begun = self.seconds, time.perf_counter()
        loader = epoch_loader(
            self.views, epoch, self.batch_size, self.steps, workers(), first, self.parts
        )
        for index, batch in enumerate(loader, first):
            look = index % LOOK_EVERY == 0 or index == self.steps - 1
            self.outcomes.append(self._step(epoch * self.steps + index, batch, look))
            self.seconds = before + time.perf_counter() - begun
            if look:
                self.check()
                rate = (index + 1) * self.batch_size / self.seconds
                monitor.step(epoch, index + 1, rate, self.outcomes[-1])
            after()

    def _step(self, step: int, batch: ViewBatch, look: bool) -> Outcome:
        # Drop path is the only reader of the global generator: seeded anew, it has no state to
        # carry over.
        torch.manual_seed(derive(self.job.seed, "dropout", step, distributed.rank()))
        self.schedule.step_update(step)
        weight = self.objective.lambda_at(step / self.steps)
        progress = (step + 1) / (self.steps * self.job.plan.train.epochs)
        there = ViewBatch(*(t.to(self.where, non_blocking=True) for t in batch))
        return self.stepper.take(there, weight, step, progress, look)

    def check(self) -> None:
        """Raise NotFinite at the first of this epoch's steps whose loss or gradient is not finite;
        waits for the device.
        """
        new = self.outcomes[self.checked :]
        if not new:
            return
        seen = torch.stack([torch.stack([o.loss.float(), o.gradient_norm.float()]) for o in new])
        bad = (~seen.isfinite()).any(1).nonzero()
        if len(bad):
            index = int(bad[0])
            step = self.checked + index
            loss, norm = seen[index].tolist()
            raise NotFinite(
                f"loss is {loss:g} and the gradient's norm {norm:g} at epoch {len(self.history)}, "
                f"step {step}"
            )
        self.checked = len(self.outcomes)

    def row(self) -> dict[str, float]:
        """The epoch's row, by the names of history.csv, once all its steps are done."""
        epoch = len(self.history)
        row = {"epoch": epoch, **means(self.outcomes, self.job.plan.contrast is not None)}
        row |= self.watch.look(
            self.model, self.objective, self.values, self.job.plan.train.batch_size
        )
        row |= {
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            "images_per_second": self.steps * self.batch_size / self.seconds,
            "seconds": self.seconds,
            "peak_memory_bytes": peak_memory(self.where),
        }
        if self.job.plan.contrast is not None:
            last = (epoch * self.steps + self.steps - 1) / self.steps
            row |= {**self.objective.state(), "lambda_weight": self.objective.lambda_at(last)}
        return row

    def close_epoch(self, row: dict[str, float]) -> None:
        """The epoch becomes a row of the history; the next one begins."""
        self.history.append(row)
        self.outcomes, self.checked, self.seconds = [], 0, 0.0

    @property
    def fits(self) -> dict[str, Any]:
        """What a checkpoint must share with this training; the fingerprint holds all, the rest says
        where they differ.
        """
        plan = self.job.plan
        return {
            "architecture": plan.network.model_name,
            "model_args": plan.network.model_args,
            "classes": self.job.classes,
            "mode": plan.mode,
            "seed": self.job.seed,
            "fingerprint": self.job.fingerprint,
        }

    def state(self) -> dict[str, Any]:
        """All that a resumed training needs to end in the same bits; the schedule and the views
        follow from `done`.
        """
        average = self.stepper.average
        return {
            "fits": self.fits,
            "done": self.done,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "average": average.module.state_dict() if average else None,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history,
            "outcomes": pack(self.outcomes),
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any], source: str) -> None:
        """Go on from a state; CheckpointError where it is another training's."""
        checkpoint.refuse_other(state["fits"], self.fits, source)
        try:
            self.model.load_state_dict(state["model"])
            self.objective.load_state_dict(state["objective"])
            if self.stepper.average:
                self.stepper.average.module.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            self.history, self.outcomes = state["history"], unpack(state["outcomes"])
            self.seconds = float(state["seconds"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise checkpoint.CheckpointError(
                f"{source}: does not fit: {' '.join(str(error).split())[:160]}; start without it"
            ) from None
