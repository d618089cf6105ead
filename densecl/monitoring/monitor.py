"""Progress of a training run: a bar, one line per epoch, an MLflow run, and other loggers."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from densecl import distributed
from densecl.artifacts import TrainPlan, write_text
from densecl.config.flatten import flatten
from densecl.monitoring.loggers import Logger, start_loggers
from densecl.monitoring.mlflow_store import DURATION_METRIC, import_mlflow, select_experiment
from densecl.runtime.progress import write_progress

NOTE_INTERVAL = 60.0  # s between lines on progress within an epoch, where no bar is drawn


class Monitor:
    """Context manager of one training run; only the main process prints and logs.

    Args:
        fingerprint: tag by which the MLflow run is found.
        run_id_file: holds the id of the MLflow run until training is done, so that a resumed run
            continues it.

    If MLflow or another logger fails, one line is printed and training continues without it.
    """

    def __init__(
        self,
        plan: TrainPlan,
        seed: int,
        steps_per_epoch: int,
        fingerprint: str,
        run_id_file: Path | None = None,
    ) -> None:
        self.plan, self.seed, self.run_id_file = plan, seed, run_id_file
        self.name = f"{plan.mode}-{seed}"  # of the MLflow run, and before each printed line
        self.fingerprint = fingerprint
        self.mlflow_enabled = distributed.is_main_process()
        self.loggers: list[Logger] = []  # others than MLflow
        self.console = Console(file=sys.stderr, quiet=not distributed.is_main_process())
        self.progress_bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[seen]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.progress_bar.add_task(
            self.name, total=plan.train.epochs * steps_per_epoch, seen=""
        )
        self.steps_per_epoch = steps_per_epoch
        self.first_step: tuple[float, int] | None = None  # when this process counted how many
        self.last_note = float("-inf")

    def __enter__(self) -> Self:
        if distributed.is_main_process():
            self.loggers = start_loggers(
                self.name, self.fingerprint, self._list_params(), self._warn_of_end
            )
        self.progress_bar.start()
        self._call_mlflow(self._start_run)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        interrupted = error_type is not None and issubclass(error_type, KeyboardInterrupt)
        self._call_mlflow(
            lambda mlflow: mlflow.end_run(
                "KILLED" if interrupted else "FAILED" if error_type else "FINISHED"
            )
        )
        self._call_loggers(lambda logger: logger.close(int(error_type is not None)))
        self.progress_bar.stop()

    def update_progress(
        self, epoch: int, steps_done: int, images_per_second: float, metrics: Mapping[str, Tensor]
    ) -> None:
        """Update the bar: epoch, images/s and the losses; without a terminal print them with the
        time left, once per NOTE_INTERVAL.
        """
        losses = f"classification {float(metrics['classification_loss']):.3f}"
        if "contrastive_loss" in metrics:
            losses += f" contrast {float(metrics['contrastive_loss']):.3f}"
        epochs, done = self.plan.train.epochs, epoch * self.steps_per_epoch + steps_done
        text = f"epoch {epoch + 1}/{epochs} {images_per_second:.0f} images/s {losses}"
        self.progress_bar.update(self.task, completed=done, seen=text)
        self._note_progress(done, text, steps_done / self.steps_per_epoch)
        if distributed.is_main_process():
            write_progress(done, epochs * self.steps_per_epoch, text)

    def _note_progress(self, done: int, text: str, share: float) -> None:
        now = time.monotonic()
        start, before = self.first_step = self.first_step or (now, done)
        if done == before:
            self.last_note = now
        if self.console.is_terminal or now - self.last_note < NOTE_INTERVAL:
            return
        self.last_note = now
        left = (self.plan.train.epochs * self.steps_per_epoch - done) * (now - start)
        minutes = left / (done - before) / 60
        self.print_note(f"{text}  {100 * share:.0f} % of the epoch, {minutes:.0f} min left")

    def log_epoch(self, row: dict[str, float]) -> None:
        """Print one line, and log every finite value of the row."""
        labels = {
            "loss": "loss",
            "train_top1": "train",
            "top1/imagenet": "val",
            "contrastive_loss": "contrast",
        }
        parts = [f"{label} {row[key]:.3f}" for key, label in labels.items() if key in row]
        epoch = int(row["epoch"]) + 1
        self.print_note(
            f"epoch {epoch}/{self.plan.train.epochs}  {'  '.join(parts)}  "
            f"{row['images_per_second']:.0f} images/s"
        )
        finite = {
            name: float(value)
            for name, value in row.items()
            if name != "epoch" and math.isfinite(value)
        }
        self._call_mlflow(lambda mlflow: mlflow.log_metrics(finite, step=epoch))
        self._call_loggers(lambda logger: logger.log_metrics(finite, epoch))

    def log_duration(self, seconds: float, device: str) -> None:
        """Log the seconds of the training run, over all interruptions, and where it ended."""

        def log(mlflow: Any) -> None:
            mlflow.log_metric(DURATION_METRIC, seconds)
            mlflow.set_tag("device", device)

        self._call_mlflow(log)

    def log_artifacts(self, folders: dict[str, Path]) -> None:
        """Upload folders to the MLflow run, by their artifact path."""

        def upload(mlflow: Any) -> None:
            for name, folder in folders.items():
                mlflow.log_artifacts(str(folder), name)

        self._call_mlflow(upload)

    def print_note(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(f"{self.name}: {text}", highlight=False, markup=False, soft_wrap=True)

    def _start_run(self, mlflow: Any) -> None:
        select_experiment(mlflow)
        if self.run_id_file and self.run_id_file.exists():
            mlflow.start_run(run_id=self.run_id_file.read_text(encoding="utf-8"))
            return
        tags = {"mode": self.plan.mode, "seed": str(self.seed), "fingerprint": self.fingerprint}
        run = mlflow.start_run(run_name=self.name, tags=tags)
        if self.run_id_file:
            write_text(self.run_id_file, run.info.run_id)
        mlflow.log_params(self._list_params())

    def _list_params(self) -> dict[str, Any]:
        return flatten(self.plan.model_dump(mode="json", by_alias=True)) | {"seed": self.seed}

    def _call_loggers(self, call: Callable[[Logger], object]) -> None:
        for logger in list(self.loggers):
            try:
                call(logger)
            except Exception as error:
                self.loggers.remove(logger)
                self._warn_of_end(type(logger).__name__, error)

    def _call_mlflow(self, call: Callable[[Any], object]) -> None:
        if not self.mlflow_enabled:
            return
        try:
            call(import_mlflow())
        except Exception as error:
            self.mlflow_enabled = False
            self._warn_of_end("MLflow logging", error)

    def _warn_of_end(self, name: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        self.print_note(f"warning: {name} stopped, training continues: {reason}")
