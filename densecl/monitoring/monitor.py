"""What a training tells while it runs: a progress bar, one line an epoch, and an MLflow run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from densecl import distributed
from densecl.artifacts import TrainPlan, write_text
from densecl.monitoring.mlflow_store import EXPERIMENT, connected
from densecl.training.step import Outcome


class Monitor:
    """Context of one training. A tracking store that fails is told once; the training goes on.

    `fingerprint` is the training's: by that tag its run is found. `remembered` is a file that holds
    the MLflow run's id for as long as the training is not done: an interrupted one goes on in the
    same run. Only the first of several processes tells anything.
    """

    def __init__(
        self,
        plan: TrainPlan,
        seed: int,
        steps: int,
        name: str,
        fingerprint: str,
        remembered: Path | None = None,
    ) -> None:
        self.plan, self.seed, self.name, self.remembered = plan, seed, name, remembered
        self.fingerprint = fingerprint
        self.tracked = distributed.first()
        self.console = Console(file=sys.stderr, quiet=not distributed.first())
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[seen]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task(name, total=plan.train.epochs * steps, seen="")
        self.steps = steps
        self.stack = ExitStack()

    def __enter__(self) -> Monitor:
        self.stack.enter_context(self.bar)
        self._track(self._start)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        self._track(
            lambda mlflow: mlflow.end_run(
                "KILLED" if interrupted else "FAILED" if kind else "FINISHED"
            )
        )
        self.stack.close()

    def step(self, epoch: int, done: int, rate: float, seen: Outcome) -> None:
        """Move the bar: epoch, images/s and the losses."""
        losses = f"classification {float(seen.classification_loss):.3f}"
        if self.plan.contrast:
            losses += f" contrast {float(seen.contrast.loss):.3f}"
        text = f"epoch {epoch + 1}/{self.plan.train.epochs} {rate:.0f} images/s {losses}"
        self.bar.update(self.task, completed=epoch * self.steps + done, seen=text)

    def epoch(self, row: dict[str, float]) -> None:
        """One line for people and one metric each for MLflow."""
        shown = {
            "loss": "loss",
            "train_top1": "train",
            "top1/imagenet": "val",
            "contrastive_loss": "contrast",
        }
        parts = [f"{label} {row[key]:.3f}" for key, label in shown.items() if key in row]
        epoch = int(row["epoch"]) + 1
        self.note(
            f"epoch {epoch}/{self.plan.train.epochs}  {'  '.join(parts)}  "
            f"{row['images_per_second']:.0f} images/s"
        )
        finite = {
            name: float(value)
            for name, value in row.items()
            if name != "epoch" and math.isfinite(value)
        }
        self._track(lambda mlflow: mlflow.log_metrics(finite, step=epoch))

    def artifacts(self, folders: dict[str, Path]) -> None:
        """Attach what the training wrote, by the name it has in the run."""
        for name, folder in folders.items():
            self._track(partial(_attach, name, folder))

    def note(self, text: str) -> None:
        """A line above the bar."""
        self.console.print(f"{self.name}: {text}", highlight=False, markup=False, soft_wrap=True)

    def _start(self, mlflow: Any) -> None:
        mlflow.set_experiment(EXPERIMENT)
        before = (
            self.remembered.read_text(encoding="utf-8")
            if self.remembered and self.remembered.exists()
            else None
        )
        if before and _has(mlflow, before):
            mlflow.start_run(run_id=before)
            return
        tags = {"mode": self.plan.mode, "seed": str(self.seed), "fingerprint": self.fingerprint}
        run = mlflow.start_run(run_name=self.name, tags=tags)
        if self.remembered:
            write_text(self.remembered, run.info.run_id)
        mlflow.log_params(
            dict(_flat(self.plan.model_dump(mode="json", by_alias=True))) | {"seed": self.seed}
        )

    def _track(self, call: Callable[[Any], object]) -> None:
        if not self.tracked:
            return
        try:
            call(connected())
        except Exception as error:
            self.tracked = False
            self.note(
                f"MLflow tracking stopped, training goes on: {type(error).__name__}: "
                f"{str(error).splitlines()[0]}"
            )


def _has(mlflow: Any, run: str) -> bool:
    """Is the run still in the store? It may be another store, or the run may have been deleted."""
    try:
        return bool(mlflow.get_run(run).info.lifecycle_stage == "active")
    except mlflow.exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _attach(name: str, folder: Path, mlflow: Any) -> None:
    mlflow.log_artifacts(str(folder), name)


def _flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in values.items():
        pairs += (
            _flat(value, f"{prefix}{key}.")
            if isinstance(value, dict) and value
            else [(prefix + key, value)]
        )
    return pairs
