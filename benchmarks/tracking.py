"""What following a training costs: the bar at each logged step, MLflow at each epoch, beside the
steps themselves.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks import steps
from benchmarks.measure import Row, alternate
from benchmarks.steps import Setup
from densecl.artifacts import TrainPlan
from densecl.config.params import Data
from densecl.monitoring.monitor import Monitor
from densecl.training.epoch_metrics import means
from densecl.training.trainer import LOOK_EVERY

EPOCH = 100  # steps; ImageNet's has 5,004 of 256 images


def rows(rounds: int = 9) -> list[Row]:
    setup, before = Setup(), Path.cwd()
    stepper, batch = steps.stepper(setup, "dense"), steps.batch(setup)
    outcome = stepper.take(batch, 0.5, 0, look=True)
    plan = TrainPlan(
        mode="dense",
        network=setup.network,
        data=Data(),
        train=setup.train,
        contrast=steps.MODES["dense"],
    )
    row = (
        means([outcome], True) | stepper.objective.state() | {"epoch": 0, "images_per_second": 1.0}
    )
    row |= {
        f"match/{number}": 0.5 for number in range(40)
    }  # about as many figures as a real row has
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{place}/runs.db"
        try:
            with Monitor(plan, 0, EPOCH, "dense-0", "benchmark") as monitor:
                kinds = {
                    "step": partial(stepper.take, batch, 0.5, 0),
                    "logged": lambda: monitor.step(0, 1, 1.0, outcome),
                    "epoch": lambda: monitor.epoch(row),
                }
                times = {name: median(seen) for name, seen in alternate(kinds, rounds).items()}
                assert monitor.tracked, "MLflow stopped: its cost was not measured"
        finally:
            os.chdir(before)
            del os.environ["MLFLOW_TRACKING_URI"]
    what = f"dense step, {setup.model}, batch {setup.batch}"

    def cost(name: str, kind: str, of: int, target: str) -> Row:
        share = times[kind] / (of * times["step"])
        return Row(
            "P13",
            name,
            f"{1000 * times[kind]:.2f} ms",
            f"{of} x {times['step']:.3f} s, {what}",
            f"{share:.5f}",
            target,
        )

    return [
        cost(
            f"progress of a logged step / the {LOOK_EVERY} steps it stands for",
            "logged",
            LOOK_EVERY,
            "≤ 0.01",
        ),
        cost(f"MLflow and the line of an epoch / {EPOCH} steps", "epoch", EPOCH, "≤ 0.01"),
    ]
