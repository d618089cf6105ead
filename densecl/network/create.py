"""timm vision transformers by name, and what one must have to be trained here."""

from collections.abc import Mapping
from typing import Any, cast

import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from densecl.config.params import NetworkParams
from densecl.errors import DenseclError

WEIGHT_SOURCES = {
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")
}
Backbone = VisionTransformer | Eva | Beit


class ModelError(DenseclError):
    """A model name, argument or weights file that cannot be used."""


def check_sources(name: str, model_args: Mapping[str, Any]) -> None:
    """ModelError for a name or arguments by which timm fetches something: config.json may be a
    stranger's, and would choose the address or the file.
    """
    if not timm.is_model(name):
        raise ModelError(f"architecture: found {name!r}, which timm {timm.__version__} lacks")
    if found := sorted(WEIGHT_SOURCES & model_args.keys()):
        raise ModelError(
            f"model_args: found {', '.join(found)}, expected arguments of the architecture alone; "
            "weights are named elsewhere (network.pretrained, network.checkpoint)"
        )


def create_backbone(network: NetworkParams, num_classes: int) -> Backbone:
    """A model with random weights; ModelError if it cannot be built or trained here."""
    name = network.model_name
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name[:8]}*")[:4]) or "see timm.list_models('vit*')"
        raise ModelError(
            f"network.model_name: found {name!r}, which timm {timm.__version__} does not know; "
            f"close: {close}"
        )
    check_sources(name, network.model_args)
    try:
        model = timm.create_model(name, num_classes=num_classes, **network.model_args)
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"network.model_args: {name} cannot be built with {network.model_args}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(model, Backbone):
        raise ModelError(
            f"network.model_name: {name} is a {type(model).__name__}; expected a timm "
            f"VisionTransformer, Eva or Beit"
        )
    _check_trainable(model, network)
    return model


def _check_trainable(model: Backbone, network: NetworkParams) -> None:
    """Raise ModelError unless there are a CLS token, one classifier on it, and a square grid."""
    name, embed = network.model_name, model.patch_embed
    cfg = cast("dict[str, Any]", model.pretrained_cfg)
    (rows, columns), patch_problem = embed.grid_size, find_patch_problem(model)
    channels = network.model_args.get("in_chans", cfg["input_size"][0])
    patch_drop_rate = network.model_args.get("patch_drop_rate")
    rules = (
        (
            channels == 3,
            f"network.model_args: found in_chans {channels}, expected 3: images are read as RGB; "
            f"remove in_chans",
        ),
        (not patch_problem, f"network.model_args: {patch_problem}"),
        (
            model.cls_token is not None,
            f"network.model_name: {name} has no CLS token, which classification and the global "
            f"objective need",
        ),
        (
            not hasattr(model, "head_dist"),
            f"network.model_name: {name} has a second, distilled classifier; expected one "
            f"classifier on the CLS token: choose a model without distillation",
        ),
        (
            not patch_drop_rate,
            f"network.model_args: found patch_drop_rate {patch_drop_rate}, expected none: dropped "
            f"patches cannot be matched",
        ),
        (
            rows == columns > 1 and rows * columns == embed.num_patches,
            f"network.model_name: {name} has a {rows} x {columns} patch grid; expected a square "
            f"one of 2 x 2 or more",
        ),
    )
    for holds, problem in rules:
        if not holds:
            raise ModelError(problem)
    if model.global_pool != "token":
        raise ModelError(
            f"network.model_name: {name} has global_pool {model.global_pool!r}; expected one "
            f"classifier on the CLS token, which the global objective and the probe read too: "
            f"{_advise_on_pooling(name)}"
        )


def find_patch_problem(model: Backbone) -> str:
    """Why the patches do not fill the images; "" if they do."""
    (height, width), patch = model.patch_embed.img_size, model.patch_embed.patch_size
    if height % patch[0] == 0 and width % patch[1] == 0:
        return ""
    return (
        f"patches of {patch[0]} x {patch[1]} px do not fill {height} x {width} px; expected a "
        "patch_size that divides img_size"
    )


def _advise_on_pooling(name: str) -> str:
    """What to do about a classifier that does not read the CLS token.

    Other pooling is no advice where it changes which weights the model has: the pretrained ones
    would not fit.
    """
    with torch.device("meta"):
        default = timm.create_model(name)
        pooled = timm.create_model(name, global_pool="token")
    if _get_backbone_shapes(default) == _get_backbone_shapes(pooled):
        return "set model_args: {global_pool: token}, or choose another model"
    return (
        "choose another model; its pretrained weights have no final norm of the CLS token, or have "
        "a pooling layer (docs/method.md, Initial weights)"
    )


def _get_backbone_shapes(model: Any) -> dict[str, torch.Size]:
    """Shapes of all weights but those of the classifier."""
    state = model.state_dict()
    return {name: value.shape for name, value in state.items() if not name.startswith("head.")}
