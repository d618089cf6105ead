"""One training from plan and manifests to the files it leaves; the stage and `train.py` both come through here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from densecl import layout
from densecl.datasets.manifest import class_list
from densecl.hardware import reuse_freed_memory
from densecl.network.preprocessing import preprocessing
from densecl.network.vit import Backbone
from densecl.records import TrainPlan, write_json
from densecl.robustness.evaluation import predict
from densecl.robustness.protocols import scored_classes
from densecl.training import checkpoint
from densecl.training.engine import Job, Trainer, fit
from densecl.training.tracking import Monitor


@dataclass(frozen=True)
class ImageSet:
    """Usable rows of a set and where its images lie."""

    frame: pd.DataFrame
    root: Path
    preprocess: str = "model"


def train(
    plan: TrainPlan, seed: int, images: ImageSet, validation: Mapping[str, ImageSet], model: Path, history: Path
) -> None:
    """Train, then write `model` (safetensors, config) and `history` (history.csv, cost.json)."""
    reuse_freed_memory()
    classes = class_list(images.root)
    digest = pd.util.hash_pandas_object(images.frame[["image_id", "label", "sha256"]], index=False).to_numpy().tobytes()
    run = checkpoint.fingerprint(plan, seed, digest)

    def validate(current: Backbone) -> dict[str, float]:
        return {name: _top1(current, name, images_, classes, plan) for name, images_ in validation.items()}

    job = Job(plan, seed, images.frame, images.root, classes, run, validate)
    trainer = Trainer(job)
    with Monitor(plan, seed, trainer.steps, f"{plan.mode}-{seed}") as monitor:
        trained, rows, cost = fit(trainer, layout.CHECKPOINTS, monitor)
        checkpoint.export(trained, model, plan, seed, classes, run)
        history.mkdir(parents=True, exist_ok=True)
        rows.to_csv(history / "history.csv", index=False)
        write_json(history / "cost.json", cost)
        monitor.artifacts({"model": model, "training": history})
    shutil.rmtree(layout.CHECKPOINTS / run, ignore_errors=True)


def _top1(model: Backbone, name: str, images: ImageSet, classes: list[str], plan: TrainPlan) -> float:
    values = preprocessing(model, "as-is" if images.preprocess == "as-is" else "model")
    scored = scored_classes(name, images.frame, classes)
    return float(predict(model, images.frame, images.root, values, scored, plan.train.batch_size)["correct"].mean())
