"""Overhead of monitoring: the progress bar per diagnostic step, MLflow per epoch."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import steps
from benchmarks.measure import BenchmarkRow, measure_alternating
from benchmarks.steps import StepSetup
from densecl.artifacts import TrainPlan
from densecl.config.params import DataParams
from densecl.monitoring.monitor import Monitor
from densecl.training.step_metrics import compute_epoch_means
from densecl.training.trainer import LOG_EVERY

EPOCH_STEPS = 100  # steps; ImageNet's has 5,004 of 256 images


def measure_rows(rounds: int = 9) -> list[BenchmarkRow]:
    setup, previous_folder = StepSetup(), Path.cwd()
    train_step, batch = steps.build_train_step(setup, "dense"), steps.build_batch(setup)
    metrics = train_step(batch, 0.5, 0, diagnostics=True)
    plan = TrainPlan(
        mode="dense",
        network=setup.network,
        data=DataParams(),
        train=setup.train,
        contrast=steps.MODES["dense"],
    )
    row = (
        compute_epoch_means([metrics])
        | train_step.objective.collect_metrics(0.0)
        | {"epoch": 0, "images_per_second": 1.0}
    )
    row |= {
        f"match/{number}": 0.5 for number in range(40)
    }  # about as many metrics as a real row has
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/runs.db"
        try:
            with Monitor(plan, 0, EPOCH_STEPS, "benchmark") as monitor:
                calls: dict[str, Callable[[], object]] = {
                    "step": partial(train_step, batch, 0.5, 0),
                    "logged": lambda: monitor.update_progress(0, 1, 1.0, metrics),
                    "epoch": lambda: monitor.log_epoch(row),
                }
                times = {
                    name: median(seconds)
                    for name, seconds in measure_alternating(calls, rounds).items()
                }
                assert monitor.mlflow_enabled, "MLflow stopped: its cost was not measured"
        finally:
            os.chdir(previous_folder)
            del os.environ["MLFLOW_TRACKING_URI"]
    setting = f"dense step, {setup.model}, batch {setup.batch}"

    def format_cost_row(name: str, call: str, step_count: int, target: str) -> BenchmarkRow:
        share = times[call] / (step_count * times["step"])
        return BenchmarkRow(
            "P13",
            name,
            f"{1000 * times[call]:.2f} ms",
            f"{step_count} x {times['step']:.3f} s, {setting}",
            f"{share:.5f}",
            target,
        )

    return [
        format_cost_row(
            f"progress display of a diagnostic step / {LOG_EVERY} steps",
            "logged",
            LOG_EVERY,
            "≤ 0.01",
        ),
        format_cost_row(
            f"MLflow and the line of an epoch / {EPOCH_STEPS} steps", "epoch", EPOCH_STEPS, "≤ 0.01"
        ),
    ]
