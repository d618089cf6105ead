"""Load an exported model: a timm state dict and its config."""

import json
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load_model

from densecl.config.params import NetworkParams
from densecl.datasets.storage.decode import Orientation
from densecl.errors import DataError
from densecl.network.preprocessing import set_orientation
from densecl.network.vit import Backbone, build_model
from densecl.runtime.cli import shorten_line

FILES = ("model.safetensors", "config.json")


def load_exported_model(folder: Path) -> tuple[Backbone, dict[str, Any]]:
    """The model in evaluation mode, and its config.json, of a folder that training exported;
    DataError names the file and the reason.
    """
    place = shorten_line(folder)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{place}: found no {' and no '.join(missing)}; expected a folder of a trained model, "
            "such as models/dense/seed-0"
        )
    try:
        return _load_files(folder)
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        file = FILES[0] if isinstance(error, SafetensorError) else " and ".join(FILES)
        raise DataError(
            f"{place}: {file} cannot be used ({type(error).__name__}: {shorten_line(error)}); "
            "`dvc checkout` or the place that it came from restores it"
        ) from None


def _load_files(folder: Path) -> tuple[Backbone, dict[str, Any]]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _check_config(config)
    model = build_model(
        NetworkParams(model_name=config["architecture"], model_args=config["model_args"]),
        config["num_classes"],
        0,
    )
    load_model(model, folder / "model.safetensors")
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} is not finite: damaged, or the training diverged")
    set_orientation(model, config.get("exif", "ignore"))
    return model.eval(), config


def _check_config(config: dict[str, Any]) -> None:
    """ValueError for what training does not write."""
    if "num_classes" in config["model_args"]:
        raise ValueError("the config of an export; name the folder that it was made from")
    if (exif := config.get("exif", "ignore")) not in get_args(Orientation):
        raise ValueError(f"exif {exif!r}, expected one of {', '.join(get_args(Orientation))}")
    classes, outputs = config.get("classes"), config["num_classes"]
    if classes is None:
        return
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError("classes that are no list of names")
    if len(set(classes)) != outputs or len(classes) != outputs:
        raise ValueError(f"{len(set(classes)):,} different classes for {outputs:,} outputs")
