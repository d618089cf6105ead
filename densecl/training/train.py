"""One training from plan and manifests to the files it leaves; the stage and `train.py` both come
through here.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from densecl import distributed, paths
from densecl.artifacts import TrainPlan, write_json
from densecl.contrast.objective import Contrastive
from densecl.datasets.storage.usable_images import ImageSet
from densecl.monitoring.monitor import Monitor
from densecl.network.image_loader import image_loader
from densecl.network.preprocessing import normalise, preprocessing
from densecl.network.vit import Backbone, tokens
from densecl.runtime.atomic_files import whole_folder
from densecl.runtime.hardware import reuse_freed_memory
from densecl.training import checkpoint
from densecl.training.checkpoint import Checkpoints
from densecl.training.export import export
from densecl.training.fingerprint import fingerprint
from densecl.training.fit import Fit
from densecl.training.linear_probe import fit_probe
from densecl.training.trainer import Job, Trainer


def train(
    plan: TrainPlan,
    seed: int,
    images: ImageSet,
    classes: list[str],
    validate: Callable[[Backbone], dict[str, float]],
    model: Path,
    history: Path,
    resume: Path | None = None,
) -> None:
    """Train, then write `model` (safetensors of model and heads, config) and `history`
    (history.csv, cost.json, matches).

    `validate` gives what is logged of the model after each epoch; nothing of it reaches the model.
    Goes on from the checkpoints that an interrupted run of the same training left, or from `resume`
    where that is further. Started by torchrun, all processes train one model and the first one
    writes.
    """
    distributed.start()
    reuse_freed_memory()
    digest = (
        pd.util.hash_pandas_object(images.frame[["image_id", "label", "sha256"]], index=False)
        .to_numpy()
        .tobytes()
    )
    run = fingerprint(plan, seed, digest)

    probed = (
        plan.contrast is not None and plan.contrast.lambda_weight == 1
    )  # no classifier is trained on the way

    trainer = Trainer(
        Job(
            plan,
            seed,
            images.frame,
            images.root,
            classes,
            run,
            (lambda _: {}) if probed else validate,
        )
    )
    with ExitStack() as stack:
        stack.callback(distributed.end)
        kept = (
            stack.enter_context(checkpoint.held(paths.CHECKPOINTS / run))
            if distributed.first()
            else None
        )
        remembered = kept.folder / "mlflow_run" if kept else None
        with Monitor(plan, seed, trainer.steps, f"{plan.mode}-{seed}", run, remembered) as monitor:
            fit = Fit(trainer, kept, monitor)
            state = _state_before(kept, resume, monitor)
            if state is not None:
                fit.resume(*state)
            fit.run()
            if kept is None:
                return  # the first process writes
            trained, rows, cost = fit.result()
            if probed:
                attach_probe(trained, images, len(classes), plan.train.batch_size)
            heads = (
                trainer.objective.head.state_dict()
                if isinstance(trainer.objective, Contrastive)
                else {}
            )
            with whole_folder(model) as folder:
                export(trained, heads, folder, plan, seed, classes, run)
            with whole_folder(history) as folder:
                trainer.watch.picture(
                    trained, trainer.objective, trainer.values, folder / "matches.safetensors"
                )
                rows.to_csv(folder / "history.csv", index=False)
                write_json(folder / "cost.json", cost)
            monitor.artifacts({"model": model, "training": history})
        kept.remove()  # last of all: what is killed before goes on from here


def _state_before(
    kept: Checkpoints | None, resume: Path | None, monitor: Monitor
) -> tuple[dict[str, Any], str] | None:
    """The state with the most steps done, of the checkpoints kept and `resume`, and where it lay;
    the same in every process.
    """
    data, source = None, ""
    if kept is not None:
        data, source = kept.newest(monitor.note)
        if resume is not None:
            given = checkpoint.read(resume)
            if (
                data is None
                or checkpoint.decode(given, str(resume))["done"]
                > checkpoint.decode(data, source)["done"]
            ):
                data, source = given, str(resume)
    data = distributed.broadcast(data)
    return (checkpoint.decode(data, source), source) if data is not None else None


@torch.no_grad()
def attach_probe(model: Backbone, images: ImageSet, classes: int, batch_size: int) -> None:
    """Put a linear probe on the training images' frozen CLS features in the classifier's place."""
    where = next(model.parameters()).device
    files = [images.root / path for path in images.frame["path"]]
    values = preprocessing(model)
    loader = image_loader(files, values, batch_size)
    features = torch.cat(
        [tokens(model.eval(), normalise(b.to(where), values)).cls.float() for b, _ in loader]
    )
    labels = torch.tensor(images.frame["label"].to_numpy(copy=True), device=where)
    with torch.enable_grad():
        weight, bias = fit_probe(features, labels, classes)
    model.get_classifier().load_state_dict({"weight": weight, "bias": bias})
