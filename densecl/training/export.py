"""Export of a trained model: weights that timm loads, and how to build and feed it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from densecl.artifacts import TrainPlan, write_text
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone


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
        save_file(tensors, folder / f"{name}.safetensors", metadata=metadata)
    is_probe = plan.contrast is not None and plan.contrast.lambda_weight == 1
    config = {
        "architecture": plan.network.model_name,
        "model_args": plan.network.model_args,
        "num_classes": len(classes),
        "classes": classes,
        "pretrained_cfg": resolve_preprocessing(model).model_dump(mode="json", exclude={"rule"}),
        "mode": plan.mode,
        "classifier": "linear probe" if is_probe else "trained",
        "seed": seed,
        "fingerprint": fingerprint,
    }
    write_text(folder / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
