"""Train one model and export it."""

from __future__ import annotations

from densecl import paths
from densecl.artifacts import Execution, ReportPlan, TrainPlan, Verdict, read_json
from densecl.config.params import TRAIN_SET
from densecl.runtime.launch import launch, launched


def main(mode: str, seed: int) -> None:
    """Write models/<mode>/seed-<n>/ and reports/training/<mode>-<n>/, by `train.processes`
    processes.

    The evaluation sets that are validated on every epoch are watched only: nothing of them reaches
    the model, so they are no dependency and a new one retrains nothing.
    """
    execution = read_json(Execution, paths.plan("execution"))
    if execution.processes > 1 and not launched():
        launch(execution.processes, ["-m", "steps", "train", mode, str(seed)])
        return
    from densecl.datasets.storage.image_root import list_classes
    from densecl.datasets.storage.usable_images import usable_images
    from densecl.evaluation.validator import build_validator
    from densecl.training.train import train

    plan = read_json(TrainPlan, paths.plan(mode))
    how = plan.train.model_copy(update={"checkpoint_minutes": execution.checkpoint_minutes})
    watched = (
        plan.train.validate_on
        if plan.train.validate_on is not None
        else read_json(ReportPlan, paths.plan("report")).datasets
    )
    validation = {
        name: usable_images(name)
        for name in watched
        if read_json(Verdict, paths.verdict(name)).passed
    }
    images = usable_images(TRAIN_SET)
    classes = list_classes(images.root)
    train(
        plan.model_copy(update={"train": how}),
        seed,
        images,
        classes,
        build_validator(validation, classes, plan.train.batch_size),
        paths.model(mode, seed),
        paths.training(mode, seed),
    )
