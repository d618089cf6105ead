"""Train one model and export it."""

import os

from densecl import paths
from densecl.artifacts import (
    ExecutionPlan,
    ReportPlan,
    TrainPlan,
    ValidationResult,
    read_json,
)
from densecl.config.params import TRAIN_SET
from densecl.runtime.launch import count_nodes, launch_processes

HOW_TO_TRAIN = ("checkpoint_minutes", "parallel", "checkpoint_activations")


def main(mode: str, seed: int) -> None:
    """Write models/<mode>/seed-<n>/ and reports/training/<mode>-<n>/, by `train.processes`
    processes.

    Validation accuracies per epoch are only logged and never reach the model, so the evaluation
    datasets are not dependencies of the stage: a new one retrains nothing.
    """
    execution = read_json(ExecutionPlan, paths.plan_file("execution"))
    if execution.processes * count_nodes() > 1 and "WORLD_SIZE" not in os.environ:
        launch_processes(execution.processes, ["-m", "steps", "train", mode, str(seed)])
        return
    from densecl.datasets.storage.manifest import read_classes
    from densecl.datasets.storage.usable_images import (
        SCORING_COLUMNS,
        TRAINING_COLUMNS,
        load_usable_images,
    )
    from densecl.evaluation.validator import build_validator
    from densecl.training.train import train

    plan = read_json(TrainPlan, paths.plan_file(mode))
    validation_names = (
        plan.train.validate_on
        if plan.train.validate_on is not None
        else read_json(ReportPlan, paths.plan_file("report")).datasets
    )
    validation = {
        name: images
        for name in validation_names
        if read_json(ValidationResult, paths.validation_file(name)).passed
        and not (images := load_usable_images(name, SCORING_COLUMNS)).grouped
    }
    classes = read_classes(paths.manifest_file(TRAIN_SET))
    how = {name: getattr(execution, name) for name in HOW_TO_TRAIN}
    train(
        plan.model_copy(update={"train": plan.train.model_copy(update=how)}),
        seed,
        # Held by nothing here: it is large.
        load_usable_images(TRAIN_SET, TRAINING_COLUMNS, fetch=plan.data.order == "images"),
        classes,
        build_validator(
            validation, classes, plan.train.batch_size, keep_images=plan.data.cache == "ram"
        ),
        paths.model_folder(mode, seed),
        paths.training_folder(mode, seed),
    )
