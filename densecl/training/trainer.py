"""The training loop: epochs of steps, each with a row of the history and a checkpoint."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from densecl import distributed
from densecl.artifacts import TrainingFacts, TrainPlan
from densecl.contrast.build import build_objective, limit_queue_size
from densecl.datasets.views.batch import LoadedBatch
from densecl.datasets.views.device_transforms import finish_batch
from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader
from densecl.errors import Interrupted
from densecl.monitoring.monitor import Monitor
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone, build_model, get_patch_grid
from densecl.runtime.hardware import count_workers, get_device, read_peak_memory
from densecl.runtime.signals import SIGNAL_HANDLER
from densecl.seeding import derive_seed
from densecl.training.diagnostics import FeatureDiagnostics
from densecl.training.optim import build_optimizer, build_schedule
from densecl.training.step import TrainStep
from densecl.training.step_metrics import (
    StepMetrics,
    compute_epoch_means,
    find_training_warnings,
    is_diagnostic_step,
    stack_steps,
)
from densecl.training.train_state import StateSaver, TrainingError, explain_failures

VALIDATION_RISK = 30.0  # s of steps that a kill during validation may cost


@dataclass(frozen=True)
class TrainingSpec:
    """All that one training run reads."""

    plan: TrainPlan
    seed: int
    frame: pd.DataFrame  # usable rows of the training manifest
    root: Path
    classes: list[str]
    fingerprint: str
    validate: Callable[[Backbone], dict[str, float]]  # top-1 by evaluation dataset


class Trainer:
    """One training run. Everything random in it follows from the seed."""

    saver: StateSaver
    monitor: Monitor

    def __init__(self, spec: TrainingSpec) -> None:
        self.spec, self.settings = spec, spec.plan.train
        images, settings = len(spec.frame), self.settings
        self.device = get_device()
        self.batch_size = min(settings.batch_size, images)
        self.micro_batches = settings.grad_accumulation
        world_size = distributed.get_world_size()
        if world_size > 1 and self.batch_size % (self.micro_batches * world_size):
            raise TrainingError(
                f"train.batch_size: found a batch of {self.batch_size} images in "
                f"{self.micro_batches} micro-batches, expected one that {world_size} processes can "
                "share equally; make it a multiple of grad_accumulation x processes, no larger "
                "than the dataset"
            )
        self.steps_per_epoch = min(settings.steps_per_epoch or images, images // self.batch_size)
        self.model = build_model(
            spec.plan.network, len(spec.classes), spec.seed, settings.drop_path
        ).to(self.device)
        self.preprocessing = resolve_preprocessing(self.model)
        self.views = TwoViewDataset(
            spec.frame.reset_index(drop=True),
            spec.root,
            spec.plan.data,
            self.preprocessing.input_size[1:],
            spec.seed,
        )
        self.generator = torch.Generator().manual_seed(derive_seed(spec.seed, "samples"))
        patches = math.prod(get_patch_grid(self.model))
        self.objective = build_objective(
            spec.plan.contrast,
            self.model,
            limit_queue_size(spec.plan.contrast, images, patches),
            spec.seed,
            self.generator,
        ).to(self.device)
        self.optimizer = build_optimizer(self.model, self.objective, settings)
        self.schedule = build_schedule(self.optimizer, settings, self.steps_per_epoch)
        self.train_step = TrainStep(
            self.model, self.objective, self.optimizer, self.preprocessing, settings
        )
        self.feature_diagnostics = FeatureDiagnostics(self.views, spec.seed, self.device)
        self.history: list[dict[str, float]] = []  # one row per finished epoch
        self.timings: list[dict[str, float]] = []  # likewise: what varies with the machine
        self.step_metrics: list[StepMetrics] = []  # one per step of the current epoch
        self.steps_checked = 0  # of the current epoch, known to be finite
        self.epoch_seconds = 0.0  # of the current epoch's steps, over all interruptions
        self.previous_seconds, self.started_at = 0.0, time.monotonic()  # of runs before this one

    @property
    def steps_done(self) -> int:
        """Steps done in all epochs."""
        return len(self.history) * self.steps_per_epoch + len(self.step_metrics)

    @property
    def total_steps(self) -> int:
        """Steps of the whole training run."""
        return self.steps_per_epoch * self.settings.epochs

    @property
    def position(self) -> tuple[int, int]:
        """Finished epochs, and steps done in the current one."""
        return len(self.history), len(self.step_metrics)

    @property
    def wall_seconds(self) -> float:
        """Seconds of this training run, over all interruptions."""
        return self.previous_seconds + time.monotonic() - self.started_at

    @property
    def eval_model(self) -> Backbone:
        """The model to validate and export: the EMA if there is one."""
        return self.train_step.ema.module if self.train_step.ema else self.model

    def fit(self, saver: StateSaver, monitor: Monitor) -> None:
        """Train to the last epoch, from wherever `saver` has resumed.

        Raises Interrupted after a signal, with the state saved, and TrainingError if the loss is
        not finite or memory is exhausted.
        """
        self.saver, self.monitor = saver, monitor
        with explain_failures(self), torch.random.fork_rng():
            while len(self.history) < self.settings.epochs:
                self._run_epoch()

    def _run_epoch(self) -> None:
        """The remaining steps of the current epoch, then its row and a checkpoint."""
        # A signal waits for the end of a step, so that all ranks stop after the same one.
        with SIGNAL_HANDLER.defer_signals():
            self._train_epoch()
        SIGNAL_HANDLER.raise_if_signalled()
        self.check_finite()
        if self.saver.seconds_since_save > VALIDATION_RISK:
            self.saver.save()
        row = self._build_epoch_row() if distributed.is_main_process() else {}
        timing = self._measure_epoch()
        accuracies = self.spec.validate(self.eval_model)
        row |= {f"top1/{name}": top1 for name, top1 in accuracies.items()}
        with SIGNAL_HANDLER.defer_signals():
            self.history.append(row)
            self.timings.append(timing)
            self.step_metrics, self.steps_checked, self.epoch_seconds = [], 0, 0.0
            if distributed.is_main_process():
                self.monitor.log_epoch(row | timing)
                self.saver.save()
                for warning in find_training_warnings(row):
                    self.monitor.print_note(f"WARNING: {warning}")
        SIGNAL_HANDLER.raise_if_signalled()

    def _train_epoch(self) -> None:
        epoch, first_step = self.position
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
            diagnostics = is_diagnostic_step(index, self.steps_per_epoch)
            self.step_metrics.append(self._run_step(self.steps_done, batch, diagnostics))
            self.epoch_seconds = previous_seconds + time.perf_counter() - start
            if diagnostics:
                self.check_finite()
                rate = (index + 1) * self.batch_size / self.epoch_seconds
                self.monitor.update_progress(epoch, index + 1, rate, self.step_metrics[-1])
            self._end_step()

    def _run_step(self, step: int, loaded: LoadedBatch, diagnostics: bool) -> StepMetrics:
        # Only dropout and drop path use the global generator; seeded per step, it needs no state.
        torch.manual_seed(derive_seed(self.spec.seed, "dropout", step, distributed.get_rank()))
        self.schedule.step_update(step)
        lambda_weight = self.objective.compute_lambda_weight(step / self.steps_per_epoch)
        batch = finish_batch(loaded, self.device)
        return self.train_step(
            batch, lambda_weight, step, (step + 1) / self.total_steps, diagnostics
        )

    def _end_step(self) -> None:
        if self.saver.seconds_since_save > self.settings.checkpoint_minutes * 60:
            self.saver.save()
        if distributed.any_rank(bool(SIGNAL_HANDLER.received)):
            SIGNAL_HANDLER.raise_if_signalled()
            raise Interrupted("another rank received a signal")

    def check_finite(self) -> None:
        """Raise TrainingError at the first step whose loss or gradient is not finite.

        Checks the steps since the last call; waits for the device.
        """
        unchecked = stack_steps(self.step_metrics[self.steps_checked :])
        if not unchecked:
            return
        loss, norm = unchecked["loss"], unchecked["gradient_norm"]  # [steps]
        bad_steps = (~(loss.isfinite() & norm.isfinite())).nonzero()
        if len(bad_steps):
            index = int(bad_steps[0])
            raise TrainingError(
                f"loss is {float(loss[index]):g} and the norm of the gradient "
                f"{float(norm[index]):g} at epoch {len(self.history)}, "
                f"step {self.steps_checked + index}; {self.saver.describe_last()}; lower "
                "train.learning_rate, raise contrast.temperature, lengthen train.warmup_epochs or "
                "lower train.grad_clip"
            )
        self.steps_checked = len(self.step_metrics)

    def _build_epoch_row(self) -> dict[str, float]:
        """The row of history.csv of the epoch whose steps are all done."""
        return {
            "epoch": len(self.history),
            **compute_epoch_means(self.step_metrics),
            **self.feature_diagnostics.compute_diagnostics(
                self.model, self.objective, self.preprocessing, self.settings.batch_size
            ),
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            **self.objective.collect_metrics((self.steps_done - 1) / self.steps_per_epoch),
        }

    def _measure_epoch(self) -> dict[str, float]:
        """Throughput, seconds of the steps and peak memory of the epoch whose steps are all done.

        They vary with the machine, so they are logged and are in no file of the training run.
        """
        return {
            "images_per_second": self.steps_per_epoch * self.batch_size / self.epoch_seconds,
            "seconds": self.epoch_seconds,
            "peak_memory_bytes": read_peak_memory(self.device),
        }

    def collect_facts(self) -> TrainingFacts:
        """What training.json holds."""
        return TrainingFacts(
            fingerprint=self.spec.fingerprint,
            batch_size=self.batch_size,
            queue_size_effective=self.objective.memory_size,
        )
