"""What a training leaves: weights that timm loads, and what is needed to build and feed the
model.
"""

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
    """`model.safetensors` (a timm state dict), the `config.json` to build and feed it, and the
    projection's `heads.safetensors`.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(
        {n: v.detach().cpu().contiguous() for n, v in head_state.items()},
        folder / "heads.safetensors",
    )
    config = {
        "architecture": plan.network.model_name,
        "model_args": plan.network.model_args,
        "num_classes": len(classes),
        "classes": classes,
        "pretrained_cfg": resolve_preprocessing(model).model_dump(mode="json", exclude={"rule"}),
        "mode": plan.mode,
        "classifier": "linear probe"
        if plan.contrast and plan.contrast.lambda_weight == 1
        else "trained",
        "seed": seed,
        "fingerprint": fingerprint,
    }
    write_text(folder / "config.json", json.dumps(config, indent=1, sort_keys=True) + "\n")
