"""Find the files of the models that `evaluate.models` names, and check that they can be evaluated,
by names and shapes only.
"""

import difflib
import json
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import timm
import torch
from safetensors import safe_open
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg

from densecl import paths
from densecl.config.model_params import OtherModelParams
from densecl.datasets.storage.filenames import WNID
from densecl.evaluation.other_models import (
    PREPROCESSING_KEYS,
    check_architecture,
    create_classifier,
)
from densecl.network.attention import find_attention
from densecl.network.create import ModelError
from densecl.runtime.links import replace_link

CONFIG_TYPES = {
    "architecture": str,
    "model_args": dict,
    "num_classes": int,
    "classes": list,
    "pretrained_cfg": dict,
}
WEIGHTS, CONFIG = "model.safetensors", "config.json"


class OtherModel(NamedTuple):
    """Where a model is, and what is known of it in the form that training exports."""

    weights: Path
    config: dict[str, Any]
    config_file: Path | None  # that says all of `config` already


def find_other_model(name: str, spec: OtherModelParams) -> OtherModel:
    """The checked model of an entry of `evaluate.models`; ModelError in one line."""
    try:
        with torch.device("meta"):
            found = _read_entry(spec)
            shapes = _read_shapes(found.weights)
            check_architecture(found.config)
            _check_outputs(found, shapes)
            create_classifier(
                found.config, {key: torch.empty(shape) for key, shape in shapes.items()}
            )
    except ModelError as error:
        raise ModelError(f"evaluate.models.{name}: {error}") from None
    return found


def check_reference(folder: Path) -> None:
    """ModelError unless the files in the folder are a model whose CLS attention can be read."""
    with torch.device("meta"):
        config, shapes = _read_config(folder / CONFIG), _read_shapes(folder / WEIGHTS)
        if missing := {"model_args", "num_classes"} - config.keys():
            raise ModelError(f"{folder / CONFIG} has no {' and no '.join(sorted(missing))}")
        check_architecture(config)
        empty = {name: torch.empty(shape) for name, shape in shapes.items()}
        find_attention(create_classifier(config, empty))


def link_other_model(name: str, model: OtherModel) -> None:
    """Fill data/models/<name> with links to the model's files, or with its config; DVC hashes what
    the links lead to.
    """
    folder = paths.model_folder(name, None)
    folder.mkdir(parents=True, exist_ok=True)
    replace_link(folder / WEIGHTS, model.weights)
    config = folder / CONFIG
    if model.config_file:
        replace_link(config, model.config_file)
    else:
        config.unlink(missing_ok=True)
        text = json.dumps(model.config, indent=1, sort_keys=True, ensure_ascii=False)
        config.write_text(text + "\n", encoding="utf-8")


def _read_entry(spec: OtherModelParams) -> OtherModel:
    if spec.weights is None:
        return _read_published(spec)
    weights = Path(spec.weights)
    if weights.is_dir():
        weights /= WEIGHTS
    if not weights.is_file():
        raise ModelError(f"{weights}: no such file; expected weights")
    if weights.suffix != ".safetensors":
        raise ModelError(
            f"{weights} is no .safetensors file; other formats can run code when they are read: "
            f"convert it by safetensors.torch.save_file"
        )
    config_file = weights.parent / CONFIG
    if spec.architecture is None and not config_file.is_file():
        raise ModelError(
            f"{weights} has no {CONFIG} beside it; name the architecture and the classes: "
            f"{{weights: {spec.weights}, architecture: vit_base_patch16_224, classes: imagenet-1k}}"
        )
    given = {} if spec.architecture else _read_config(config_file)
    config = _complete_config(given, spec)
    return OtherModel(weights, config, config_file if config == given else None)


def _read_published(spec: OtherModelParams) -> OtherModel:
    """timm's weights, which must be in the hub's cache: nothing is downloaded."""
    name = str(spec.architecture)
    cfg = get_pretrained_cfg(name) if timm.is_model(name) else None
    if cfg is None or not cfg.hf_hub_id:
        close = ", ".join(difflib.get_close_matches(name, timm.list_pretrained(), 3, 0.4))
        raise ModelError(
            f"timm {timm.__version__} has no weights for {name!r}; close: {close}; a path has a "
            f"'/' in it, such as ./{name}"
        )
    check_architecture({"architecture": name, "model_args": spec.model_args})
    weights = huggingface_hub.try_to_load_from_cache(cfg.hf_hub_id, WEIGHTS)
    if not isinstance(weights, str):
        raise ModelError(
            f"the weights of {name} are not in {huggingface_hub.constants.HF_HUB_CACHE}; `hf "
            f"download {cfg.hf_hub_id}` puts them there, or name the folder that you copied them to"
        )
    given = {"architecture": name, "num_classes": cfg.num_classes, "pretrained_cfg": cfg.to_dict()}
    return OtherModel(Path(weights), _complete_config(given, spec), None)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, kind in CONFIG_TYPES.items():
            if not isinstance(config.get(key, kind()), kind) or "architecture" not in config:
                raise TypeError(f"{key} is no {kind.__name__}")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ModelError(
            f"{path} is no config of a timm model ({type(error).__name__}: {error}); expected JSON "
            f"with architecture, model_args and classes, as training exports it"
        ) from None
    return config


def _complete_config(given: dict[str, Any], spec: OtherModelParams) -> dict[str, Any]:
    """The config in the form that training exports: what params say, else what `given` says, else
    what timm knows. `given` itself if it says all.
    """
    config: dict[str, Any] = {"model_args": {}} | given
    if spec.architecture:
        config |= {"architecture": spec.architecture, "model_args": spec.model_args}
    if not timm.is_model(config["architecture"]):
        raise ModelError(f"timm {timm.__version__} does not know {config['architecture']!r}")
    if config.get("num_classes") == 0 and not spec.classes:
        config["classes"] = []  # a backbone: its tokens can be probed
    elif spec.classes or "classes" not in config:
        config["classes"] = _list_classes(config, spec)
    config.setdefault("num_classes", len(config["classes"]))
    if config == given:
        return config
    cfg = config.get("pretrained_cfg", {})
    return config | {"pretrained_cfg": {key: cfg[key] for key in PREPROCESSING_KEYS if key in cfg}}


def _list_classes(config: dict[str, Any], spec: OtherModelParams) -> list[str]:
    """The wnids of the outputs, in their order."""
    if spec.classes and "/" not in spec.classes and not Path(spec.classes).exists():
        return _list_subset(spec.classes)
    if spec.classes:
        try:
            return Path(spec.classes).read_text(encoding="utf-8").split()
        except (OSError, ValueError) as error:
            raise ModelError(f"classes: {spec.classes} cannot be read: {error}") from None
    names = config.get("label_names")  # in folders that timm writes, of any words
    names = names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []
    subset = infer_imagenet_subset(config)
    if names and subset and not all(map(WNID.fullmatch, names)):
        raise ModelError(
            f"its label_names, such as {names[0]!r}, are no wnids, and {subset} has as many "
            f"classes; say which they are by classes: {subset}, or a file with a name per line"
        )
    if names:
        return names
    if subset is None:
        raise ModelError(
            "it is not known which classes its outputs are; expected a classifier, and classes: a "
            "file with a wnid per line in the order of the outputs, or imagenet-1k"
        )
    return _list_subset(subset)


def _list_subset(name: str) -> list[str]:
    try:
        return list(ImageNetInfo(name).label_names())
    except AssertionError:
        raise ModelError(
            f"classes: found {name!r}, expected a file, or a class list that timm knows, such as "
            f"imagenet-1k, imagenet-12k, imagenet-21k-goog or imagenet-22k"
        ) from None


def _read_shapes(weights: Path) -> dict[str, list[int]]:
    try:
        with safe_open(weights, framework="pt") as file:
            return {name: file.get_slice(name).get_shape() for name in file.offset_keys()}
    except Exception as error:
        raise ModelError(f"{weights} cannot be read as safetensors: {error}") from None


def _check_outputs(model: OtherModel, shapes: dict[str, list[int]]) -> None:
    """ModelError unless the classifier has as many outputs as there are classes; none of none."""
    classes = model.config["classes"]
    repeated = len(classes) - len(set(classes))
    found = {key: shape[0] for key, shape in shapes.items() if key.endswith("head.weight")}
    if repeated:
        raise ModelError(f"{repeated} of its {len(classes)} classes are named more than once")
    if not found and classes:
        raise ModelError(f"{model.weights} has no classifier (head.weight), expected one")
    if found and len(classes) not in found.values():
        raise ModelError(
            f"the classifier has {next(iter(found.values()))} outputs, but {len(classes)} classes "
            f"are named; expected one for each"
        )
