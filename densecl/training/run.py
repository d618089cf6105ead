"""One training from plan and manifests to the files it leaves; the stage and `train.py` both come through here."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from densecl import layout
from densecl.contrast.objectives import Contrastive
from densecl.datasets.manifest import class_list
from densecl.hardware import reuse_freed_memory
from densecl.network.preprocessing import normalise, preprocessing
from densecl.network.vit import Backbone, tokens
from densecl.records import TrainPlan, write_json
from densecl.robustness.evaluation import image_loader, predict, scoring
from densecl.robustness.protocols import FOLDER, Rule
from densecl.training import checkpoint
from densecl.training.engine import Job, Trainer, fit
from densecl.training.probe import fit_probe
from densecl.training.tracking import Monitor


@dataclass(frozen=True)
class ImageSet:
    """Usable rows of a set and where its images lie."""

    frame: pd.DataFrame
    root: Path
    preprocess: Rule | None = None  # None: as the protocol says
    protocol: str = FOLDER
    classes: tuple[str, ...] = ()  # wnids it is scored over; empty: as the protocol says


def train(
    plan: TrainPlan, seed: int, images: ImageSet, validation: Mapping[str, ImageSet], model: Path, history: Path
) -> None:
    """Train, then write `model` (safetensors of model and heads, config) and `history` (history.csv, cost.json, matches)."""
    reuse_freed_memory()
    classes = class_list(images.root)
    digest = pd.util.hash_pandas_object(images.frame[["image_id", "label", "sha256"]], index=False).to_numpy().tobytes()
    run = checkpoint.fingerprint(plan, seed, digest)

    probed = plan.contrast is not None and plan.contrast.lambda_weight == 1  # no classifier is trained on the way

    def validate(current: Backbone) -> dict[str, float]:
        return {} if probed else {name: _top1(current, images_, classes, plan) for name, images_ in validation.items()}

    job = Job(plan, seed, images.frame, images.root, classes, run, validate)
    trainer = Trainer(job)
    with Monitor(plan, seed, trainer.steps, f"{plan.mode}-{seed}") as monitor:
        trained, rows, cost = fit(trainer, layout.CHECKPOINTS, monitor)
        if probed:
            attach_probe(trained, images, len(classes), plan.train.batch_size)
        heads = trainer.objective.head.state_dict() if isinstance(trainer.objective, Contrastive) else {}
        checkpoint.export(trained, heads, model, plan, seed, classes, run)
        history.mkdir(parents=True, exist_ok=True)
        trainer.watch.picture(trained, trainer.objective, trainer.values, history / "matches.safetensors")
        rows.to_csv(history / "history.csv", index=False)
        write_json(history / "cost.json", cost)
        monitor.artifacts({"model": model, "training": history})
    shutil.rmtree(layout.CHECKPOINTS / run, ignore_errors=True)


@torch.no_grad()
def attach_probe(model: Backbone, images: ImageSet, classes: int, batch_size: int) -> None:
    """Put a linear probe on the training images' frozen CLS features in the classifier's place."""
    where = next(model.parameters()).device
    paths = [images.root / path for path in images.frame["path"]]
    values = preprocessing(model)
    loader = image_loader(paths, values, batch_size)
    features = torch.cat([tokens(model.eval(), normalise(b.to(where), values)).cls.float() for b, _ in loader])
    labels = torch.tensor(images.frame["label"].to_numpy(copy=True), device=where)
    with torch.enable_grad():
        weight, bias = fit_probe(features, labels, classes)
    model.get_classifier().load_state_dict({"weight": weight, "bias": bias})


def _top1(model: Backbone, images: ImageSet, classes: list[str], plan: TrainPlan) -> float:
    frame, values, scored = scoring(
        model, images.frame, classes, protocol=images.protocol, preprocess=images.preprocess, given=images.classes
    )
    return float(predict(model, frame, images.root, values, scored, plan.train.batch_size)["correct"].mean())
