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
from densecl.contrast.objective import ContrastiveObjective
from densecl.datasets.storage.usable_images import ImageSet
from densecl.monitoring.monitor import Monitor
from densecl.network.image_loader import build_image_loader
from densecl.network.preprocessing import normalise_images, resolve_preprocessing
from densecl.network.vit import Backbone, forward_tokens
from densecl.runtime.atomic_files import create_atomic_folder
from densecl.runtime.hardware import reuse_freed_memory
from densecl.training import checkpoint
from densecl.training.checkpoint import CheckpointFolder
from densecl.training.export import export_model
from densecl.training.fingerprint import compute_fingerprint
from densecl.training.fit import Fit
from densecl.training.linear_probe import fit_linear_probe
from densecl.training.trainer import Trainer, TrainingSpec


def train(
    plan: TrainPlan,
    seed: int,
    images: ImageSet,
    classes: list[str],
    compute_top1: Callable[[Backbone], dict[str, float]],
    model_folder: Path,
    history_folder: Path,
    resume: Path | None = None,
) -> None:
    """Train, then write `model_folder` (safetensors of model and heads, config) and `history`
    (history.csv, cost.json, matches).

    `validate` gives what is logged of the model after each epoch; nothing of it reaches the model.
    Goes on from the checkpoints that an interrupted run of the same training left, or from `resume`
    where that is further. Started by torchrun, all processes train one model and the first one
    writes.
    """
    distributed.init_process_group()
    reuse_freed_memory()
    manifest_hash = (
        pd.util.hash_pandas_object(images.frame[["image_id", "label", "sha256"]], index=False)
        .to_numpy()
        .tobytes()
    )
    run_fingerprint = compute_fingerprint(plan, seed, manifest_hash)

    needs_probe = (
        plan.contrast is not None and plan.contrast.lambda_weight == 1
    )  # no classifier is trained on the way

    trainer = Trainer(
        TrainingSpec(
            plan,
            seed,
            images.frame,
            images.root,
            classes,
            run_fingerprint,
            (lambda _: {}) if needs_probe else compute_top1,
        )
    )
    with ExitStack() as stack:
        stack.callback(distributed.destroy_process_group)
        checkpoints = (
            stack.enter_context(checkpoint.lock_checkpoints(paths.CHECKPOINTS / run_fingerprint))
            if distributed.is_main_process()
            else None
        )
        run_id_file = checkpoints.folder / "mlflow_run" if checkpoints else None
        with Monitor(
            plan, seed, trainer.steps_per_epoch, f"{plan.mode}-{seed}", run_fingerprint, run_id_file
        ) as monitor:
            fit = Fit(trainer, checkpoints, monitor)
            state = _load_resume_state(checkpoints, resume, monitor)
            if state is not None:
                fit.resume(*state)
            fit.run()
            if checkpoints is None:
                return  # the first process writes
            trained, epoch_rows, cost = fit.result()
            if needs_probe:
                attach_linear_probe(trained, images, len(classes), plan.train.batch_size)
            heads = (
                trainer.objective.head.state_dict()
                if isinstance(trainer.objective, ContrastiveObjective)
                else {}
            )
            with create_atomic_folder(model_folder) as folder:
                export_model(trained, heads, folder, plan, seed, classes, run_fingerprint)
            with create_atomic_folder(history_folder) as folder:
                trainer.feature_diagnostics.save_match_picture(
                    trained,
                    trainer.objective,
                    trainer.preprocessing,
                    folder / "matches.safetensors",
                )
                epoch_rows.to_csv(folder / "history.csv", index=False)
                write_json(folder / "cost.json", cost)
            monitor.log_artifacts({"model": model_folder, "training": history_folder})
        checkpoints.remove_all()  # last of all: what is killed before goes on from here


def _load_resume_state(
    checkpoints: CheckpointFolder | None, resume: Path | None, monitor: Monitor
) -> tuple[dict[str, Any], str] | None:
    """The state with the most steps done, of the checkpoints kept and `resume`, and where it lay;
    the same in every process.
    """
    data, source = None, ""
    if checkpoints is not None:
        data, source = checkpoints.load_latest(monitor.print_note)
        if resume is not None:
            resume_data = checkpoint.read_checkpoint(resume)
            if (
                data is None
                or checkpoint.load_state(resume_data, str(resume))["done"]
                > checkpoint.load_state(data, source)["done"]
            ):
                data, source = resume_data, str(resume)
    data = distributed.broadcast_bytes(data)
    return (checkpoint.load_state(data, source), source) if data is not None else None


@torch.no_grad()
def attach_linear_probe(model: Backbone, images: ImageSet, classes: int, batch_size: int) -> None:
    """Put a linear probe on the training images' frozen CLS features in the classifier's place."""
    device = next(model.parameters()).device
    files = [images.root / path for path in images.frame["path"]]
    data_config = resolve_preprocessing(model)
    loader = build_image_loader(files, data_config, batch_size)
    features = torch.cat(
        [
            forward_tokens(model.eval(), normalise_images(b.to(device), data_config)).cls.float()
            for b, _ in loader
        ]
    )
    labels = torch.tensor(images.frame["label"].to_numpy(copy=True), device=device)
    with torch.enable_grad():
        weight, bias = fit_linear_probe(features, labels, classes)
    model.get_classifier().load_state_dict({"weight": weight, "bias": bias})
