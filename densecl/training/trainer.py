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
from densecl.config.params import GlobalContrastParams
from densecl.contrast.dense import build_objective, count_keys_per_image
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.two_views import EpochSampler, TwoViewDataset, create_epoch_loader
from densecl.errors import DenseclError
from densecl.monitoring.monitor import Monitor
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone, build_model, get_patch_grid
from densecl.runtime.hardware import count_workers, get_device, measure_peak_memory
from densecl.seeding import derive_seed
from densecl.training import checkpoint
from densecl.training.diagnostics.features import FeatureDiagnostics
from densecl.training.epoch_metrics import compute_epoch_means, pack, unpack
from densecl.training.optim import build_optimizer, build_schedule
from densecl.training.step import StepMetrics, TrainStep
from densecl.training.step_cost import measure_step_costs

# steps between looks at the loss and at both losses' gradients: each look waits for the device
LOG_EVERY = 10


class TrainingError(DenseclError):
    """A training that cannot go on."""


class NonFiniteLossError(Exception):
    """A step after which nothing can be learned; `fit` adds what is kept and what to try."""


@dataclass(frozen=True)
class TrainingSpec:
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

    def __init__(self, spec: TrainingSpec) -> None:
        self.spec, settings = spec, spec.plan.train
        self.device = get_device()
        self.batch_size, self.micro_batches = (
            min(settings.batch_size, len(spec.frame)),
            settings.grad_accumulation,
        )
        if (
            self.batch_size % (self.micro_batches * distributed.get_world_size())
            and distributed.get_world_size() > 1
        ):
            raise TrainingError(
                f"a batch of {self.batch_size} images in {self.micro_batches} parts cannot be "
                f"shared by "
                f"{distributed.get_world_size()} processes "
                "alike; make train.batch_size a multiple of grad_accumulation x processes, and no "
                "larger than the set"
            )
        self.steps_per_epoch = min(
            settings.steps_per_epoch or len(spec.frame), len(spec.frame) // self.batch_size
        )
        self.model = build_model(
            spec.plan.network, len(spec.classes), spec.seed, settings.drop_path
        ).to(self.device)
        self.preprocessing = resolve_preprocessing(self.model)
        size = (self.preprocessing.input_size[1], self.preprocessing.input_size[2])
        self.views = TwoViewDataset(
            spec.frame.reset_index(drop=True), spec.root, spec.plan.data, size, spec.seed
        )
        self.generator = torch.Generator().manual_seed(derive_seed(spec.seed, "samples"))
        contrast = spec.plan.contrast
        queue_size = (
            self._limit_queue_size(contrast, math.prod(get_patch_grid(self.model)))
            if contrast
            else 0
        )
        self.objective = build_objective(
            contrast, self.model, queue_size, spec.seed, self.generator
        ).to(self.device)
        self.optimizer = build_optimizer(self.model, self.objective, settings)
        self.schedule = build_schedule(self.optimizer, settings, self.steps_per_epoch)
        self.train_step = TrainStep(
            self.model, self.objective, self.optimizer, self.preprocessing, settings
        )
        self.feature_diagnostics = FeatureDiagnostics(self.views, spec.seed, self.device)
        self.history: list[dict[str, float]] = []  # a row an epoch
        self.step_metrics: list[StepMetrics] = []  # of the epoch under way, a step each
        self.steps_checked = 0  # of them, known to be finite
        self.epoch_seconds = 0.0  # spent on those steps, over all interruptions

    def _limit_queue_size(self, contrast: GlobalContrastParams, patches: int) -> int:
        """At most half of what one pass over the set writes: more would hold an image's older keys
        beside its newer ones.
        """
        requested = contrast.queue_size
        limit = max(1, len(self.spec.frame) * count_keys_per_image(contrast, patches) // 2)
        if requested > limit:
            warnings.warn(
                f"contrast.queue_size: {requested} is more than half of what one pass over the "
                f"training set writes; "
                f"cut to {limit} for mode {self.spec.plan.mode}",
                stacklevel=2,
            )
        return min(requested, limit)

    @property
    def eval_model(self) -> Backbone:
        """The model that is validated and exported: the averaged weights where there are any."""
        return self.train_step.ema.module if self.train_step.ema else self.model

    def measure_costs(self) -> dict[str, float]:
        """Step times of this mode beside plain classification, on the first batch."""
        return measure_step_costs(
            self.model,
            self.objective,
            self.preprocessing,
            self.spec.plan.train,
            self.load_first_batch(),
        )

    def load_first_batch(self) -> ViewBatch:
        """Views of this process's share of the first batch."""
        order = EpochSampler(len(self.views), 0, self.spec.seed, self.batch_size)
        items = [
            self.views[i]
            for i in distributed.shard_epoch(order.items, self.batch_size, self.micro_batches)
        ]
        return ViewBatch(
            *(torch.stack(column).to(self.device) for column in zip(*items, strict=True))
        )

    @property
    def steps_done(self) -> int:
        """Steps done, of all epochs: where the sampler stands, since order and views follow from
        seed and epoch.
        """
        return len(self.history) * self.steps_per_epoch + len(self.step_metrics)

    def train_epoch(self, monitor: Monitor, after_step: Callable[[], object]) -> None:
        """The steps that are left of the current epoch; `after_step` is called when one is
        whole.
        """
        epoch, first_step = len(self.history), len(self.step_metrics)
        if first_step == self.steps_per_epoch:
            return
        self.model.train()
        previous_seconds, start = self.epoch_seconds, time.perf_counter()
        loader = create_epoch_loader(
            self.views,
            epoch,
            self.batch_size,
            self.steps_per_epoch,
            count_workers(),
            first_step,
            self.micro_batches,
        )
        for index, batch in enumerate(loader, first_step):
            log_diagnostics = index % LOG_EVERY == 0 or index == self.steps_per_epoch - 1
            self.step_metrics.append(
                self._run_step(epoch * self.steps_per_epoch + index, batch, log_diagnostics)
            )
            self.epoch_seconds = previous_seconds + time.perf_counter() - start
            if log_diagnostics:
                self.check_finite()
                rate = (index + 1) * self.batch_size / self.epoch_seconds
                monitor.update_progress(epoch, index + 1, rate, self.step_metrics[-1])
            after_step()

    def _run_step(self, step: int, batch: ViewBatch, log_diagnostics: bool) -> StepMetrics:
        # Drop path is the only reader of the global generator: seeded anew, it has no state to
        # carry over.
        torch.manual_seed(derive_seed(self.spec.seed, "dropout", step, distributed.get_rank()))
        self.schedule.step_update(step)
        lambda_weight = self.objective.compute_lambda_weight(step / self.steps_per_epoch)
        progress = (step + 1) / (self.steps_per_epoch * self.spec.plan.train.epochs)
        device_batch = ViewBatch(*(t.to(self.device, non_blocking=True) for t in batch))
        return self.train_step.step(device_batch, lambda_weight, step, progress, log_diagnostics)

    def check_finite(self) -> None:
        """Raise NonFiniteLossError at the first of this epoch's steps whose loss or gradient is not
        finite; waits for the device.
        """
        unchecked = self.step_metrics[self.steps_checked :]
        if not unchecked:
            return
        loss_and_norm = torch.stack(
            [torch.stack([o.loss.float(), o.gradient_norm.float()]) for o in unchecked]
        )
        not_finite = (~loss_and_norm.isfinite()).any(1).nonzero()
        if len(not_finite):
            index = int(not_finite[0])
            step = self.steps_checked + index
            loss, norm = loss_and_norm[index].tolist()
            raise NonFiniteLossError(
                f"loss is {loss:g} and the gradient's norm {norm:g} at epoch {len(self.history)}, "
                f"step {step}"
            )
        self.steps_checked = len(self.step_metrics)

    def build_epoch_row(self) -> dict[str, float]:
        """The epoch's row, by the names of history.csv, once all its steps are done."""
        epoch = len(self.history)
        row = {
            "epoch": epoch,
            **compute_epoch_means(self.step_metrics, self.spec.plan.contrast is not None),
        }
        row |= self.feature_diagnostics.compute_diagnostics(
            self.model, self.objective, self.preprocessing, self.spec.plan.train.batch_size
        )
        row |= {
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            "images_per_second": self.steps_per_epoch * self.batch_size / self.epoch_seconds,
            "seconds": self.epoch_seconds,
            "peak_memory_bytes": measure_peak_memory(self.device),
        }
        if self.spec.plan.contrast is not None:
            last_position = (
                epoch * self.steps_per_epoch + self.steps_per_epoch - 1
            ) / self.steps_per_epoch
            row |= {
                **self.objective.collect_metrics(),
                "lambda_weight": self.objective.compute_lambda_weight(last_position),
            }
        return row

    def end_epoch(self, row: dict[str, float]) -> None:
        """The epoch becomes a row of the history; the next one begins."""
        self.history.append(row)
        self.step_metrics, self.steps_checked, self.epoch_seconds = [], 0, 0.0

    @property
    def compatibility(self) -> dict[str, Any]:
        """What a checkpoint must share with this training; the fingerprint holds all, the rest says
        where they differ.
        """
        plan = self.spec.plan
        return {
            "architecture": plan.network.model_name,
            "model_args": plan.network.model_args,
            "classes": self.spec.classes,
            "mode": plan.mode,
            "seed": self.spec.seed,
            "fingerprint": self.spec.fingerprint,
        }

    def collect_state(self) -> dict[str, Any]:
        """All that a resumed training needs to end in the same bits; the schedule and the views
        follow from `steps_done`.
        """
        ema = self.train_step.ema
        return {
            "fits": self.compatibility,
            "done": self.steps_done,
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "average": ema.module.state_dict() if ema else None,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "history": self.history,
            "outcomes": pack(self.step_metrics),
            "seconds": self.epoch_seconds,
        }

    def restore_state(self, state: dict[str, Any], source: str) -> None:
        """Go on from a state; CheckpointError where it is another training's."""
        checkpoint.check_compatible(state["fits"], self.compatibility, source)
        try:
            self.model.load_state_dict(state["model"])
            self.objective.load_state_dict(state["objective"])
            if self.train_step.ema:
                self.train_step.ema.module.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.generator.set_state(state["generator"])
            self.history, self.step_metrics = state["history"], unpack(state["outcomes"])
            self.epoch_seconds = float(state["seconds"])
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise checkpoint.CheckpointError(
                f"{source}: does not fit: {' '.join(str(error).split())[:160]}; start without it"
            ) from None
