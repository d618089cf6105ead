"""Load an exported model: a timm state dict and its config."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_model

from densecl.config.params import NetworkParams
from densecl.network.vit import Backbone, build_model


def load_exported_model(folder: Path) -> tuple[Backbone, dict[str, Any]]:
    """The model in evaluation mode, and its config.json, of a folder that training exported."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = build_model(
        NetworkParams(model_name=config["architecture"], model_args=config["model_args"]),
        config["num_classes"],
        0,
    )
    load_model(model, folder / "model.safetensors")
    return model.eval(), config
