"""Cost of monitoring: the progress bar per diagnostic step, MLflow per epoch."""

import os
from contextlib import chdir
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import steps
from benchmarks.measure import BenchmarkRow, Call, measure_alternating
from densecl.artifacts import TrainPlan
from densecl.config.params import DataParams
from densecl.monitoring.monitor import Monitor
from densecl.training.step_metrics import LOG_EVERY, compute_epoch_means

EPOCH_STEPS = 100  # an epoch of ImageNet has 5,004 steps of 256 images
METRICS = 40  # about as many matching metrics as a real epoch logs


def measure_tracking(folder: Path) -> list[BenchmarkRow]:
    """Cost of both as a share of the steps between two calls."""
    setup = steps.StepSetup()
    train_step, batch = steps.build_train_step(setup, "dense"), steps.build_batch(setup)
    metrics = train_step(batch, 0.5, 0, diagnostics=True)
    plan = TrainPlan(
        mode="dense",
        network=setup.network,
        data=DataParams(),
        train=setup.train,
        contrast=steps.MODES["dense"],
    )
    row = compute_epoch_means([metrics]) | train_step.objective.collect_metrics(0.0)
    row |= {"epoch": 0, "images_per_second": 1.0}
    row |= {f"match/{number}": 0.5 for number in range(METRICS)}
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/runs.db"
    with chdir(folder), Monitor(plan, 0, EPOCH_STEPS, "benchmark") as monitor:
        calls: dict[str, Call] = {
            "step": partial(train_step, batch, 0.5, 0),
            "logged": lambda: monitor.update_progress(0, 1, 1.0, metrics),
            "epoch": lambda: monitor.log_epoch(row),
        }
        times = measure_alternating(calls, 9)
        assert monitor.mlflow_enabled, "MLflow stopped: its cost was not measured"
    del os.environ["MLFLOW_TRACKING_URI"]
    seconds = {name: median(values) for name, values in times.items()}
    return [
        BenchmarkRow(
            "P13",
            f"{measure} / {count} steps",
            f"{1000 * seconds[call]:.2f} ms",
            f"{count} x {seconds['step']:.3f} s, dense step, {setup.model}, batch {setup.batch}",
            f"{seconds[call] / (count * seconds['step']):.5f}",
            "≤ 0.01",
        )
        for measure, call, count in (
            ("progress display of a diagnostic step", "logged", LOG_EVERY),
            ("MLflow and the line of an epoch", "epoch", EPOCH_STEPS),
        )
    ]
