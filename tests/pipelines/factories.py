"""Evaluation cells and params with planted outcomes, as the stages would leave them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from densecl import paths
from densecl.artifacts import Evaluation, MissingEvaluation, Preprocessing, write_json
from densecl.config.params import Params, parse_params
from densecl.evaluation.metrics import compute_dataset_metrics, compute_metrics

CLASSES = tuple(f"n{number:08d}" for number in range(10))
PREPROCESSING = Preprocessing(
    rule="model",
    input_size=(3, 64, 64),
    mean=(0.5,) * 3,
    std=(0.5,) * 3,
    interpolation="bicubic",
    crop_pct=1.0,
    crop_mode="center",
)


def small_params(sets: tuple[str, ...] = ("imagenet", "sketch"), **retraining: Any) -> Params:
    """tests/small.yaml with these evaluation sets and values of `retraining`."""
    values = yaml.safe_load(
        (Path(__file__).parent.parent / "small.yaml").read_text(encoding="utf-8")
    )
    values["evaluate"]["datasets"] = list(sets)
    return parse_params(values | {"retraining": retraining}, "params.yaml")


def write_side(
    root: Path,
    dataset: str,
    mode: str,
    correct: np.ndarray,
    *,
    wnids: list[str] | None = None,
    classes: tuple[str, ...] = CLASSES,
    ids: list[str] | None = None,
) -> None:
    """A model's cell on a set: image i is of class `wnids[i]`, and was called right where
    `correct[i]`.
    """
    n = len(correct)
    wnids = wnids or [CLASSES[i % len(CLASSES)] for i in range(n)]
    label = np.array([classes.index(wnid) for wnid in wnids])
    prediction = np.where(correct, label, (label + 1) % len(classes))
    rows = pd.DataFrame(
        {
            "image_id": ids or [f"{dataset}/{i:05d}.png" for i in range(n)],
            "label": label,
            "prediction": prediction,
            "prediction_unmasked": prediction,
            "confidence": 0.5,
            "confidence_unmasked": 0.5,
            "p_true": 0.5,
            "correct": correct,
            "correct5": correct,
            "correct_unmasked": correct,
            "correct5_unmasked": correct,
        }
    )
    path = root / paths.predictions_file(dataset, mode, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path)
    write_json(
        root / paths.evaluation_file(dataset, mode, 0),
        Evaluation(
            dataset=dataset,
            protocol="folder",
            mode=mode,
            seed=0,
            images=n,
            excluded=0,
            outside=0,
            shortfall="",
            classes=len(classes),
            control=None,
            preprocessing=PREPROCESSING,
            **compute_metrics(rows),
            **compute_dataset_metrics(rows, "folder", classes, None),
        ),
    )
    model = root / paths.model_folder(mode, 0)
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text(json.dumps({"classes": list(classes)}))


def write_nothing(root: Path, dataset: str, mode: str, reason: str) -> None:
    """A cell that the evaluation left empty with a reason."""
    path = root / paths.predictions_file(dataset, mode, 0)
    path.unlink(missing_ok=True)
    record = MissingEvaluation(dataset=dataset, mode=mode, seed=0, reason=reason)
    write_json(root / paths.evaluation_file(dataset, mode, 0), record)


def outcomes(
    n: int, top1: float, fall: float, discordant: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Candidate's and champion's answers [n]: top-1 of the champion, the true difference -fall, the
    share they differ on.
    """
    rng = np.random.default_rng(seed)
    champion = rng.random(n) < top1
    # Of all images a share of (discordant + fall) / 2 is lost and one of (discordant - fall) / 2
    # gained.
    lost = rng.random(n) < (discordant + fall) / 2 / top1
    gained = rng.random(n) < (discordant - fall) / 2 / (1 - top1)
    return np.where(champion, ~lost, gained), champion
