"""The training loop: epochs of steps, each with a row of the history and a checkpoint."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from densecl import distributed
from densecl.artifacts import TrainingFacts, TrainPlan
from densecl.contrast.build import (
    AnyObjective,
    build_objective,
    compute_max_key_age,
    limit_queue_size,
)
from densecl.datasets.views.batch import LoadedBatch, ViewBatch, get_views
from densecl.datasets.views.device_transforms import finish_batch
from densecl.datasets.views.erasing import draw_rectangles, erase_rectangles
from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader
from densecl.errors import Interrupted
from densecl.monitoring.monitor import Monitor
from densecl.network.preprocessing import resolve_preprocessing, set_orientation
from densecl.network.vit import Backbone, build_model, get_patch_grid
from densecl.runtime.hardware import count_workers, get_device, read_peak_memory
from densecl.runtime.signals import SIGNAL_HANDLER
from densecl.seeding import derive_seed
from densecl.training.diagnostics import FeatureDiagnostics
from densecl.training.optim import build_schedule
from densecl.training.step import TrainStep
from densecl.training.step_metrics import (
    StepMetrics,
    compute_epoch_means,
    find_training_warnings,
    is_diagnostic_step,
    stack_steps,
)
from densecl.training.train_state import (
    DivergedError,
    StateSaver,
    TrainingError,
    explain_failures,
)
from densecl.training.votes import Decision, Votes

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
    validate: Callable[[Backbone], dict[str, float]]  # accuracies by column of history.csv


class WholeWeights(NamedTuple):
    """The modules of a trainer, with whole weights on this rank for reading."""

    model: Backbone
    objective: AnyObjective
    eval_model: Backbone  # to validate and export: the EMA if there is one


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
        set_orientation(self.model, spec.plan.data.exif)
        self.preprocessing = resolve_preprocessing(self.model)
        self.views = TwoViewDataset(
            spec.frame.reset_index(drop=True),
            spec.root,
            spec.plan.data,
            self.preprocessing.input_size[1:],
            spec.seed,
        )
        # The loader holds the rows in less memory.
        self.spec = replace(spec, frame=spec.frame[[]])
        self.generator = torch.Generator().manual_seed(derive_seed(spec.seed, "samples"))
        patches = math.prod(get_patch_grid(self.model))
        self.objective = build_objective(
            spec.plan.contrast,
            self.model,
            limit_queue_size(spec.plan.contrast, images, patches),
            spec.seed,
            self.generator,
            compute_max_key_age(spec.plan.contrast, images, self.batch_size),
        ).to(self.device)
        self.train_step = TrainStep(self.model, self.objective, self.preprocessing, settings)
        self.optimizer = self.train_step.optimizer
        self.schedule = build_schedule(self.optimizer, settings, self.steps_per_epoch)
        self.feature_diagnostics = FeatureDiagnostics(self.views, spec.seed, self.device)
        self.history: list[dict[str, float]] = []  # one row per finished epoch
        self.timings: list[dict[str, float]] = []  # likewise: what varies with the machine
        self.step_metrics: list[StepMetrics] = []  # one per step of the current epoch
        self.votes = Votes(self.device)
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

    @contextmanager
    def gather_weights(self) -> Iterator[WholeWeights]:
        """Whole weights for all that is not a step; every rank must enter."""
        with self.train_step.engine.gather_parts() as parts:
            modules: dict[str, Any] = dict(parts.items())
            model = modules["model"]
            yield WholeWeights(model, modules["objective"], modules.get("ema", model))

    def fit(self, saver: StateSaver, monitor: Monitor) -> None:
        """Train to the last epoch, from wherever `saver` has resumed.

        Raises Interrupted after a signal, with the state saved, and TrainingError if the loss is
        not finite or memory is exhausted.
        """
        self.saver, self.monitor = saver, monitor
        with explain_failures(self), torch.random.fork_rng():
            self._rehearse_step()
            while len(self.history) < self.settings.epochs:
                self._run_epoch()

    def _rehearse_step(self) -> None:
        """With several ranks, before the first step of every start: see `TrainStep.rehearse`."""
        if distributed.get_world_size() == 1:
            return
        samples = self.generator.get_state()
        ranks = self.micro_batches * distributed.get_world_size()
        self.train_step.rehearse(self.batch_size // ranks)
        self.generator.set_state(samples)

    def _run_epoch(self) -> None:
        """The remaining steps of the current epoch, then its row and a checkpoint."""
        # A signal waits for the end of a step, so that all ranks stop after the same one.
        with SIGNAL_HANDLER.defer_signals():
            self._train_epoch()
            self._stop_if_signalled(distributed.any_rank(bool(SIGNAL_HANDLER.received)))
            self.check_finite()
            # Only all ranks together can save shards, and a signal may part them from here on.
            is_sharded = self.train_step.engine.is_sharded
            if distributed.any_rank(is_sharded or self.saver.seconds_since_save > VALIDATION_RISK):
                self.saver.save()
        SIGNAL_HANDLER.raise_if_signalled()
        with self.gather_weights() as weights:
            row = self._build_epoch_row(weights) if distributed.is_main_process() else {}
            timing = self._measure_epoch()
            row |= self.spec.validate(weights.eval_model)
        with SIGNAL_HANDLER.defer_signals():
            self.history.append(row)
            self.timings.append(timing)
            self.step_metrics, self.steps_checked, self.epoch_seconds = [], 0, 0.0
            if distributed.is_main_process():
                self.monitor.log_epoch(row | timing)
            self.saver.save()
            if distributed.is_main_process():
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
        batch = self._erase_rectangles(loaded, finish_batch(loaded, self.device), step)
        progress = (step + 1) / self.total_steps
        votes = self.votes.cast()
        metrics = self.train_step(batch, lambda_weight, step, progress, diagnostics, votes)
        return self.votes.count(metrics)

    def _erase_rectangles(self, loaded: LoadedBatch, batch: ViewBatch, step: int) -> ViewBatch:
        if not self.settings.random_erasing:
            return batch
        rectangles = draw_rectangles(
            # Rows on the CPU: the device need not be waited for.
            [self.views.image_ids[row] for row in get_views(loaded).image_ids.tolist()],
            self.views.size,
            self.settings.random_erasing,
            self.settings.random_erasing_count,
            self.spec.seed,
            step // self.steps_per_epoch,
        )
        return erase_rectangles(batch, rectangles, self.preprocessing)

    def _end_step(self) -> None:
        is_due = self.saver.seconds_since_save > self.settings.checkpoint_minutes * 60
        decision = self.votes.decide(Decision(bool(SIGNAL_HANDLER.received), is_due))
        if decision.save:
            self.saver.save()
        self._stop_if_signalled(decision.stop)

    def _stop_if_signalled(self, stop: bool) -> None:
        if stop:
            SIGNAL_HANDLER.raise_if_signalled()
            raise Interrupted("another rank received a signal")

    def check_finite(self) -> None:
        """Raise DivergedError at the first step whose loss or gradient is not finite.

        Checks the steps since the last call; waits for the device.
        """
        unchecked = stack_steps(self.step_metrics[self.steps_checked :])
        if not unchecked:
            return
        loss, norm = unchecked["loss"], unchecked["gradient_norm"]  # [steps]
        bad_steps = (~(loss.isfinite() & norm.isfinite())).nonzero()
        if len(bad_steps):
            index = int(bad_steps[0])
            temperature = "raise contrast.temperature, " if self.objective.lambda_weight else ""
            raise DivergedError(
                f"loss is {float(loss[index]):g} and the norm of the gradient "
                f"{float(norm[index]):g} at epoch {len(self.history)}, "
                f"step {self.steps_checked + index}; {self.saver.describe_last()}; lower "
                f"train.learning_rate, {temperature}lengthen train.warmup_epochs or lower "
                "train.grad_clip"
            )
        self.steps_checked = len(self.step_metrics)

    def _build_epoch_row(self, weights: WholeWeights) -> dict[str, float]:
        """The row of history.csv of the epoch whose steps are all done."""
        return {
            "epoch": len(self.history),
            **compute_epoch_means(self.step_metrics),
            **self.feature_diagnostics.compute_diagnostics(
                weights.model, weights.objective, self.preprocessing, self.settings.batch_size
            ),
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
            **weights.objective.collect_metrics((self.steps_done - 1) / self.steps_per_epoch),
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
