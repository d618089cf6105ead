"""The training loop of the default params against its own step on one batch, one thread."""

import os
import time
from contextlib import chdir
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.measure import BenchmarkRow, Times, make_rate_row
from densecl import paths
from densecl.artifacts import TrainPlan
from densecl.config.params import TRAIN_SET, Mode, Params, load_params
from densecl.datasets.storage.usable_images import ImageSet
from densecl.datasets.views.batch import stack_images
from densecl.datasets.views.device_transforms import finish_batch
from densecl.evaluation.validator import build_validator
from densecl.monitoring.monitor import Monitor
from densecl.network.vit import Backbone
from densecl.runtime.hardware import reuse_freed_memory
from densecl.runtime.threads import set_training_threads
from densecl.training.checkpoint import lock_checkpoints
from densecl.training.train_state import StateSaver
from densecl.training.trainer import Trainer, TrainingSpec
from steps.unit_plans import resolve_train_plan

CLASSES = [f"n{number:08d}" for number in range(12)]  # as many as the built-in datasets have
STEPS = 10  # on one batch, after each epoch
ENVIRONMENT = {"DENSECL_WORKERS": "0", "MLFLOW_TRACKING_URI": "sqlite:///runs.db"}


def measure_loop(folder: Path, rounds: int = 2) -> list[BenchmarkRow]:
    """P16 of `none` and `dense`: rate of the loop, and what runs once per epoch."""
    params = load_params(paths.PARAMS)
    image_sets = {
        name: write_images(folder / name, rendered.images_per_class)
        for name, rendered in params.render.items()
        if name in params.datasets
    }
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    reuse_freed_memory()
    try:
        with chdir(folder):
            return [
                row
                for mode in ("none", "dense")
                for row in measure_mode(resolve_plan(params, mode, rounds), image_sets)
            ]
    finally:
        os.environ.clear()
        os.environ.update(before)


def resolve_plan(params: Params, mode: Mode, rounds: int) -> TrainPlan:
    """The plan of a mode, with one epoch of warm-up and one per round."""
    plan = resolve_train_plan(params, mode)
    train = plan.train.model_copy(update={"epochs": rounds + 1})
    return plan.model_copy(update={"train": train})


def write_images(folder: Path, images_per_class: int) -> ImageSet:
    """Images of random smooth colours with the size of the built-in ones."""
    folder.mkdir()
    rng, rows = np.random.default_rng(0), []
    for number in range(images_per_class * len(CLASSES)):
        image = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        image.resize((64, 64), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
        rows.append({"path": f"{number}.jpg", "label": number % len(CLASSES)})
    frame = pd.DataFrame(rows)
    return ImageSet(
        frame.assign(image_id=frame["path"], wnid=frame["label"].map(dict(enumerate(CLASSES)))),
        folder,
    )


def measure_mode(plan: TrainPlan, image_sets: dict[str, ImageSet]) -> list[BenchmarkRow]:
    """A real training; after each epoch, STEPS steps on one batch: A B A B."""
    set_training_threads(plan.train.threads)
    images = image_sets[TRAIN_SET]
    validated_on = plan.train.validate_on or [name for name in image_sets if name != TRAIN_SET]
    others = {name: image_sets[name] for name in validated_on}
    validator = build_validator(others, CLASSES, plan.train.batch_size, keep_images=True)
    bare_seconds: list[float] = []
    ends = [time.perf_counter()]  # of the epochs

    def validate(model: Backbone) -> dict[str, float]:
        accuracies = validator(model)
        model.train()
        start = time.perf_counter()
        for _ in range(STEPS):
            trainer.train_step(batch, trainer.objective.lambda_weight, 0)
        ends.append(time.perf_counter())
        bare_seconds.append(ends[-1] - start)
        return accuracies

    trainer = Trainer(TrainingSpec(plan, 0, images.frame, images.root, CLASSES, "", validate))
    loaded = stack_images(trainer.views[0, row] for row in range(trainer.batch_size))
    batch = finish_batch(loaded, trainer.device)
    with (
        lock_checkpoints(Path(plan.mode)) as checkpoints,
        Monitor(plan, 0, trainer.steps_per_epoch, "benchmark") as monitor,
    ):
        trainer.fit(StateSaver(trainer, checkpoints, monitor), monitor)
    loop_seconds = [timing["seconds"] for timing in trainer.timings]
    rests = [
        end - previous - loop - steps
        for previous, end, loop, steps in zip(
            ends, ends[1:], loop_seconds, bare_seconds, strict=False
        )
    ]
    shares = [rest / (rest + loop) for rest, loop in zip(rests[1:], loop_seconds[1:], strict=True)]
    times: Times = {  # per step; epoch 0 warms up
        "loop": [seconds / trainer.steps_per_epoch for seconds in loop_seconds[1:]],
        "step": [seconds / STEPS for seconds in bare_seconds[1:]],
    }
    setting = f"default model, {plan.mode}, images in memory, one thread"
    validated = sum(len(part.frame) for part in others.values())
    return [
        make_rate_row(
            "P16",
            f"training loop / its step alone, {setting}",
            times,
            "loop",
            "step",
            "≥ 0.90",
            trainer.batch_size,
            "images",
        ),
        BenchmarkRow(
            "P16",
            f"what runs once per epoch (validation on {validated:,} images, diagnostics, "
            f"checkpoint, MLflow) / an epoch, {setting}",
            f"{median(rests[1:]):.2f} s",
            f"{median(rests[1:]) + median(loop_seconds[1:]):.2f} s",
            f"{median(shares):.3f} ({min(shares):.3f} to {max(shares):.3f})",
            "≤ 0.10",
        ),
    ]
