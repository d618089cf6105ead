"""Train one model and export it."""

from __future__ import annotations

from densecl import layout
from densecl.params import TRAIN_SET
from densecl.records import Execution, ReportPlan, TrainPlan, Verdict, read_json
from densecl.training.launch import launch, launched


def main(mode: str, seed: int) -> None:
    """Write models/<mode>/seed-<n>/ and reports/training/<mode>-<n>/, by `train.processes` processes.

    The evaluation sets that are validated on every epoch are watched only: nothing of them reaches the model, so
    they are no dependency and a new one retrains nothing.
    """
    execution = read_json(Execution, layout.plan("execution"))
    if execution.processes > 1 and not launched():
        launch(execution.processes, ["-m", "steps", "train", mode, str(seed)])
        return
    from densecl.training.run import train
    from steps.images import usable_images

    plan = read_json(TrainPlan, layout.plan(mode))
    how = plan.train.model_copy(update={"checkpoint_minutes": execution.checkpoint_minutes})
    watched = (
        plan.train.validate_on
        if plan.train.validate_on is not None
        else read_json(ReportPlan, layout.plan("report")).datasets
    )
    validation = {name: usable_images(name) for name in watched if read_json(Verdict, layout.verdict(name)).passed}
    train(
        plan.model_copy(update={"train": how}), seed, usable_images(TRAIN_SET), validation,
        layout.model(mode, seed), layout.training(mode, seed),
    )  # fmt: skip
