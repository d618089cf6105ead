"""Resumable state and the exported model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import densecl
from densecl.network.preprocessing import preprocessing
from densecl.network.vit import Backbone
from densecl.records import TrainPlan, write_text

CODE = ("contrast", "datasets", "network", "training", "metrics.py", "params.py", "seeding.py")


def fingerprint(plan: TrainPlan, seed: int, manifest: bytes) -> str:
    """16 hex digits of all that decides a training: params, seed, data and the training code."""
    digest = hashlib.sha256()
    digest.update(f"{seed}\0{plan.model_dump_json()}\0".encode() + manifest)
    package = Path(densecl.__file__).parent
    for part in CODE:
        for source in sorted((package / part).rglob("*.py")) if (package / part).is_dir() else [package / part]:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


def save(state: dict[str, Any], path: Path) -> None:
    """Atomic: the file is whole or the one before stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path) -> dict[str, Any] | None:
    """The state, or None where there is none; tensors and plain values only, no pickled code."""
    return torch.load(path, weights_only=True, map_location="cpu") if path.exists() else None


def export(
    model: Backbone, heads: dict[str, Tensor], folder: Path, plan: TrainPlan, seed: int, classes: list[str], run: str
) -> None:
    """`model.safetensors` (a timm state dict), the `config.json` to build and feed it, and the projection's `heads.safetensors`."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    save_file({n: v.detach().cpu().contiguous() for n, v in heads.items()}, folder / "heads.safetensors")
    config = {
        "architecture": plan.network.model_name,
        "model_args": plan.network.model_args,
        "num_classes": len(classes),
        "classes": classes,
        "pretrained_cfg": preprocessing(model).model_dump(mode="json", exclude={"rule"}),
        "mode": plan.mode,
        "classifier": "linear probe" if plan.contrast and plan.contrast.lambda_weight == 1 else "trained",
        "seed": seed,
        "fingerprint": run,
    }
    write_text(folder / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
