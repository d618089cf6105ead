"""Models of `evaluate.models`, from a folder with model.safetensors and config.json. Letters: E
embedding width, C classes.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor, nn

from densecl.network.create import Backbone, ModelError, check_sources, find_patch_problem

# What config.json tells of the preprocessing; the input size is that of the model as it is built.
PREPROCESSING_KEYS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
CLASSIFIERS = ("head", "head_dist")  # the second: of a DeiT that was trained by distillation


def load_other_model(folder: Path) -> tuple[Backbone, dict[str, Any]]:
    """The model in evaluation mode, and its config.json."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = create_classifier(config, load_file(folder / "model.safetensors"))
    return model.eval(), config


def create_classifier(config: dict[str, Any], state: dict[str, Tensor]) -> Backbone:
    """The model of a config with the weights of `state`, converted by timm's own filter, which
    knows other projects' names and resamples position embeddings.

    A `state` on the meta device gives shapes only. ModelError where they do not fit.
    """
    name, model_args = config["architecture"], config["model_args"]
    check_sources(name, model_args)
    given = config.get("pretrained_cfg", {})
    overlay = {key: given[key] for key in PREPROCESSING_KEYS if key in given} | {
        "state_dict": clean_state_dict(state),
        "num_classes": config["num_classes"],
        "label_offset": 0,
        "custom_load": False,
    }
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore", UserWarning)  # of torch, about the speed of the filter
            model = timm.create_model(
                name,
                pretrained=True,
                pretrained_cfg_overlay=overlay,
                # timm's own config.json has num_classes among the arguments too.
                **model_args | {"num_classes": config["num_classes"]},
            )
    except Exception as error:  # the filter fails in many ways on names that it does not expect
        raise ModelError(
            f"the weights do not fit {name} with model_args {model_args} and "
            f"{config['num_classes']} classes: {shorten(str(error), 400)}"
        ) from None
    return cast("Backbone", model)


def check_architecture(config: dict[str, Any]) -> None:
    """ModelError unless the model of a config is one that is evaluated here. Called with the meta
    device, where building it costs nothing.
    """
    name, model_args = config["architecture"], config["model_args"]
    check_sources(name, model_args)
    try:
        model = timm.create_model(name, **model_args)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{name} cannot be built with {model_args}: {shorten(str(error), 200)}"
        ) from None
    if not isinstance(model, Backbone):
        raise ModelError(
            f"{name} is a {type(model).__name__}; expected a timm VisionTransformer, Eva or Beit"
        )
    if (channels := model.patch_embed.proj.in_channels) != 3:
        raise ModelError(f"{name} takes {channels} channels; expected 3: images are read as RGB")
    if problem := find_patch_problem(model):
        raise ModelError(f"model_args: {problem}")


def select_classes(model: Backbone, classes: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Keep the model's outputs for the `wanted` classes that it knows, in that order, which is
    returned; `classes` are those of its outputs.
    """
    if list(classes) == list(wanted):
        return list(wanted)
    index = {wnid: output for output, wnid in enumerate(classes)}
    known = [wnid for wnid in wanted if wnid in index]
    rows = torch.tensor([index[wnid] for wnid in known], dtype=torch.int64)
    for name in CLASSIFIERS:
        head = getattr(model, name, None)
        if isinstance(head, nn.Linear):
            _select_outputs(head, rows)
    model.num_classes = len(known)
    return known


def _select_outputs(head: nn.Linear, rows: Tensor) -> None:
    """Make the linear layer [E -> C] one with some of its outputs, [E -> len(rows)]."""
    head.weight = nn.Parameter(head.weight.detach()[rows])
    if head.bias is not None:
        head.bias = nn.Parameter(head.bias.detach()[rows])
    head.out_features = len(rows)


def find_token_problem(model: Backbone) -> str:
    """Why the probes cannot read the model's tokens; "" if they can."""
    if model.cls_token is None:
        return "the model has no CLS token, which probes compare with its patches"
    return ""


def describe_tokens(model: Backbone) -> tuple[str, ...]:
    """What a reader must know of the tokens of a model, beside numbers that are made from them."""
    if not isinstance(model.norm, nn.Identity):
        return ()
    return (
        "the model has no final norm of its tokens: they are taken as they leave the blocks, those "
        "of other models after the norm",
    )
