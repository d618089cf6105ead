"""One training run, from plan and manifest to the files it leaves.

Both the stage `train` and `train.py` call `train`.
"""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from densecl import distributed, paths
from densecl.artifacts import TrainPlan, write_json, write_text
from densecl.config.params import DataParams
from densecl.contrast.contrastive import ContrastiveObjective
from densecl.datasets.storage.image_names import ROWS_AT_ONCE
from densecl.datasets.storage.image_places import number_archives
from densecl.datasets.storage.usable_images import ImageSet
from densecl.monitoring.monitor import Monitor
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone
from densecl.runtime.atomic_files import create_atomic_folder
from densecl.runtime.hardware import get_device_name, reuse_freed_memory
from densecl.runtime.threads import set_training_threads
from densecl.training import checkpoint
from densecl.training.checkpoint import CheckpointFolder
from densecl.training.fingerprint import compute_fingerprint
from densecl.training.linear_probe import attach_linear_probe
from densecl.training.train_state import StateSaver
from densecl.training.trainer import Trainer, TrainingSpec, WholeWeights


def train(
    plan: TrainPlan,
    seed: int,
    images: ImageSet,
    classes: list[str],
    compute_accuracies: Callable[[Backbone], dict[str, float]],
    model_folder: Path,
    history_folder: Path,
    resume: Path | None = None,
) -> None:
    """Train a model, then write `model_folder` and `history_folder`.

    Args:
        compute_accuracies: of the evaluation datasets, by column of history.csv; logged after each
            epoch, nothing of it reaches the model.
        model_folder: gets model.safetensors, heads.safetensors and config.json.
        history_folder: gets history.csv, training.json and matches.safetensors. No file of the two
            folders holds anything that varies with the machine or the time.
        resume: a checkpoint to resume from, if it is further than those of this training run.

    Under torchrun, all ranks train one model and the main process writes. Resumes from the
    checkpoints of an interrupted run of the same training. Raises what `Trainer.fit` raises, and
    CheckpointError for a `resume` that does not fit.
    """
    distributed.init_process_group()
    set_training_threads(plan.train.threads)
    reuse_freed_memory()
    fingerprint = compute_fingerprint(plan, seed, hash_images(plan.data, images))
    # With lambda = 1 no classifier is trained on the way.
    needs_probe = plan.contrast is not None and plan.contrast.lambda_weight == 1
    validate = (lambda _: {}) if needs_probe else compute_accuracies
    trainer = Trainer(
        TrainingSpec(plan, seed, images.frame, images.root, classes, fingerprint, validate)
    )
    # The rest is the loader's.
    images = replace(images, frame=images.frame[["path", "label"] if needs_probe else []])
    with ExitStack() as stack:
        stack.callback(distributed.destroy_process_group)
        checkpoints = None
        if distributed.is_main_process():
            folder = paths.CHECKPOINTS / fingerprint
            checkpoints = stack.enter_context(checkpoint.lock_checkpoints(folder))
        run_id_file = checkpoints.folder / "mlflow_run" if checkpoints else None
        with Monitor(plan, seed, trainer.steps_per_epoch, fingerprint, run_id_file) as monitor:
            saver = StateSaver(trainer, checkpoints, monitor)
            state = _load_resume_state(checkpoints, resume, monitor)
            if state is not None:
                saver.restore(*state)
            trainer.fit(saver, monitor)
            with trainer.gather_weights() as weights:
                if checkpoints is None:
                    return  # the main process writes
                if needs_probe:
                    attach_linear_probe(
                        weights.eval_model,
                        images,
                        len(classes),
                        plan.train.batch_size,
                        checkpoints.folder / "probe_features",
                    )
                write_results(trainer, weights, model_folder, history_folder)
            monitor.log_duration(trainer.wall_seconds, get_device_name(trainer.device))
            monitor.log_artifacts({"model": model_folder, "training": history_folder})
        checkpoints.remove_all()  # last, so that a run killed earlier can still resume


def hash_images(data: DataParams, images: ImageSet) -> bytes:
    """Hash of what the batches of an epoch hold; `order: shards` depends on the shard of each
    image too, and not on the shard's name.
    """
    rows = hash_rows(images.frame).tobytes()
    if data.order == "shards":
        rows += number_archives(images.root, images.frame["path"]).tobytes()
    return rows


def hash_rows(frame: pd.DataFrame) -> NDArray[np.uint64]:
    """[B]: a hash of id, label and content of each image; in parts, as pandas makes a Python string
    of each cell.
    """
    columns = frame[["image_id", "label", "sha256"]]
    parts = [
        pd.util.hash_pandas_object(columns.iloc[start : start + ROWS_AT_ONCE], index=False)
        for start in range(0, len(columns), ROWS_AT_ONCE)
    ]
    return np.concatenate([np.zeros(0, np.uint64), *(part.to_numpy() for part in parts)])


def write_results(
    trainer: Trainer, weights: WholeWeights, model_folder: Path, history_folder: Path
) -> None:
    """Write the model and the history, each folder atomically."""
    spec, objective, model = trainer.spec, weights.objective, weights.eval_model.eval()
    heads = objective.head.state_dict() if isinstance(objective, ContrastiveObjective) else {}
    with create_atomic_folder(model_folder) as folder:
        export_model(model, heads, folder, spec.plan, spec.seed, spec.classes, spec.fingerprint)
    with create_atomic_folder(history_folder) as folder:
        trainer.feature_diagnostics.save_match_picture(
            model, objective, trainer.preprocessing, folder / "matches.safetensors"
        )
        pd.DataFrame(trainer.history).to_csv(folder / "history.csv", index=False)
        write_json(folder / "training.json", trainer.collect_facts())


def export_model(
    model: Backbone,
    head_state: dict[str, Tensor],
    folder: Path,
    plan: TrainPlan,
    seed: int,
    classes: list[str],
    fingerprint: str,
) -> None:
    """Write model.safetensors (a timm state dict), heads.safetensors and config.json."""
    states = {"model": (model.state_dict(), {"format": "pt"}), "heads": (head_state, None)}
    for name, (state, metadata) in states.items():
        tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
        # Not by save_file, whose files are the owner's alone.
        (folder / f"{name}.safetensors").write_bytes(save(tensors, metadata))
    is_probe = plan.contrast is not None and plan.contrast.lambda_weight == 1
    config = {
        "architecture": plan.network.model_name,
        "model_args": plan.network.model_args,
        "num_classes": len(classes),
        "classes": classes,
        "pretrained_cfg": resolve_preprocessing(model).model_dump(
            mode="json", exclude={"rule", "border", "exif"}
        ),
        "mode": plan.mode,
        "base": plan.base,
        "classifier": "linear probe" if is_probe else "trained",
        "seed": seed,
        "fingerprint": fingerprint,
    }
    if plan.data.exif != "ignore":  # so that evaluation and serving turn images likewise
        config["exif"] = plan.data.exif
    write_text(folder / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")


def _load_resume_state(
    checkpoints: CheckpointFolder | None, resume: Path | None, monitor: Monitor
) -> tuple[dict[str, Any], str] | None:
    """The state with the most steps, of the saved checkpoints and `resume`, and its path.

    The same on every rank; None if there is no checkpoint.
    """
    data, source = None, ""
    if checkpoints is not None:
        data, source = checkpoints.load_latest(monitor.print_note)
        if resume is not None:
            resume_data = checkpoint.read_checkpoint(resume)
            resume_steps = checkpoint.load_state(resume_data, str(resume))["steps_done"]
            if data is None or resume_steps > checkpoint.load_state(data, source)["steps_done"]:
                data, source = resume_data, str(resume)
    data = distributed.broadcast_bytes(data)
    return (checkpoint.load_state(data, source), source) if data is not None else None
