"""One trial of a sweep: a training on a part of the training images, scored on two others."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from densecl import paths
from densecl.artifacts import write_json
from densecl.datasets.storage.manifest import read_manifest
from densecl.datasets.storage.usable_images import TRAINING_COLUMNS, ImageSet
from densecl.evaluation.predict import predict_images
from densecl.evaluation.scoring import resolve_model_preprocessing
from densecl.network.exported import load_exported_model
from densecl.runtime.atomic_files import open_atomic_file
from densecl.runtime.source_hash import hash_sources
from densecl.training.train import train
from densecl.training.train_state import DivergedError
from densecl.tuning.records import SweepPlan, TrialPlan, TrialResult
from densecl.tuning.split import TrainingSplit, split_training_images

# Modules that a trial's scores follow from; of others a change leaves them as they are.
TRIAL_CODE = (
    *("contrast", "datasets/storage", "datasets/views", "network", "training", "tuning"),
    *("distributed.py", "metrics.py", "seeding.py", "evaluation/predict.py"),
)
KEPT_COLUMNS = ("image_id", "label", "prediction", "confidence", "p_true", "correct")
MIN_PROBABILITY = 1e-12  # of the true class, for the logarithm


def run_trial(sweep: SweepPlan, trial: TrialPlan, how: dict[str, object]) -> None:
    """Train and score a trial, and write its result.json, predictions.parquet and history.csv.

    The same params and seed give the same files, whether it was interrupted or not: the training
    resumes from its checkpoints. A training whose loss is not finite is a result, the worst; every
    other failure is an error. `how` are keys of `train` that change no result.
    """
    folder = paths.trial_folder(sweep.name, trial.mode, trial.index)
    frame = read_manifest(paths.sweep_manifest(sweep.name))
    split = split_training_images(frame, sweep.sweep.seed, sweep.sweep.held_back)
    plan = trial.train.model_copy(update={"train": trial.train.train.model_copy(update=how)})
    failure = ""
    try:
        train(
            plan,
            sweep.seed,
            ImageSet(split.fit[list(TRAINING_COLUMNS)], sweep.images),
            list(sweep.classes),
            lambda _: {},  # scored once, at the end
            folder / "model",
            folder / "training",
        )
    except DivergedError as error:
        failure = str(error)
    if os.environ.get("RANK", "0") != "0":  # the process group has ended
        return
    rows = None if failure else score_held_back(sweep, trial, split, folder / "model")
    if rows is not None:
        with open_atomic_file(paths.trial_predictions(sweep.name, trial.mode, trial.index)) as file:
            rows.to_parquet(file, index=False)
    write_json(
        paths.trial_result(sweep.name, trial.mode, trial.index),
        build_result(trial, split, rows, failure),
    )
    shutil.rmtree(folder / "model", ignore_errors=True)  # last: a killed trial scores it again


def score_held_back(
    sweep: SweepPlan, trial: TrialPlan, split: TrainingSplit, model_folder: Path
) -> pd.DataFrame:
    """One row per held-back image, with its `part`; scored over all classes."""
    model, _ = load_exported_model(model_folder)
    held_back = pd.concat([split.select, split.confirm], ignore_index=True)
    rows = predict_images(
        model,
        held_back,
        sweep.images,
        resolve_model_preprocessing(model, held_back, sweep.protocol, sweep.preprocess),
        list(range(len(sweep.classes))),
        trial.train.train.batch_size,
    )[list(KEPT_COLUMNS)]
    return rows.assign(part=["select"] * len(split.select) + ["confirm"] * len(split.confirm))


def build_result(
    trial: TrialPlan, split: TrainingSplit, rows: pd.DataFrame | None, failure: str
) -> TrialResult:
    scores = {
        part: (0.0, None) if rows is None else score_part(rows[rows["part"] == part])
        for part in ("select", "confirm")
    }
    return TrialResult(
        mode=trial.mode,
        index=trial.index,
        values=trial.values,
        top1_select=scores["select"][0],
        loss_select=scores["select"][1],
        top1_confirm=scores["confirm"][0],
        loss_confirm=scores["confirm"][1],
        images=(len(split.fit), len(split.select), len(split.confirm)),
        failure=failure,
        code=hash_sources(TRIAL_CODE),
    )


def score_part(rows: pd.DataFrame) -> tuple[float, float]:
    """Top-1 and mean cross-entropy in nats."""
    probabilities = rows["p_true"].to_numpy(np.float64).clip(MIN_PROBABILITY)
    return float(rows["correct"].mean()), float(-np.log(probabilities).mean())
