"""timm vision transformers by name, and their tokens.

Letters: B images, N patches, E embedding, C classes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import timm
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from densecl.config.params import NetworkParams
from densecl.errors import DenseclError
from densecl.seeding import derive_seed

Backbone = VisionTransformer | Eva


class Tokens(NamedTuple):
    """What one view gives: both token kinds after the final norm."""

    cls: Tensor  # [B, E]
    patches: Tensor  # [B, N, E]
    logits: Tensor  # [B, C]


class ModelError(DenseclError):
    """A model name, argument or weights file that cannot be used."""


def build_model(
    network: NetworkParams, num_classes: int, seed: int, drop_path: float = 0.0
) -> Backbone:
    """A backbone with linear classifier, the same weights for every mode of a seed; raises
    ModelError.
    """
    if drop_path:
        network = network.model_copy(
            update={"model_args": network.model_args | {"drop_path_rate": drop_path}}
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "network"))
        model = _create_model(network, num_classes, pretrained=network.pretrained)
    if network.checkpoint:
        load_initial_weights(model, network.checkpoint)
    return model


def check_model(network: NetworkParams, num_classes: int = 2) -> tuple[int, int]:
    """The patch grid; ModelError where the model cannot be trained here. Builds it without
    memory.
    """
    with torch.device("meta"):
        model = _create_model(network, num_classes, pretrained=False)
    return get_patch_grid(model)


def get_patch_grid(model: Backbone) -> tuple[int, int]:
    """Rows and columns of the patch grid."""
    rows, columns = model.patch_embed.grid_size
    return int(rows), int(columns)


def forward_tokens(model: Backbone, images: Tensor) -> Tokens:
    """[B, 3, H, W] normalised images to their tokens; the classifier is the model's own."""
    features = model.forward_features(images)  # [B, prefix + N, E]
    return Tokens(
        features[:, 0], features[:, model.num_prefix_tokens :], model.forward_head(features)
    )


def forward_last_two_blocks(model: Backbone, images: Tensor) -> tuple[Tokens, Tensor]:
    """Tokens as `forward_tokens` gives them, and the next-to-last block's patches [B, N, E], normed
    alike.
    """
    outputs: Any = model.forward_intermediates(
        images, indices=[len(model.blocks) - 2], norm=True, output_fmt="NLC"
    )
    last, (previous_patches,) = outputs
    return Tokens(
        last[:, 0], last[:, model.num_prefix_tokens :], model.forward_head(last)
    ), previous_patches


def load_initial_weights(model: Backbone, checkpoint: str) -> None:
    """Load a local safetensors state dict; a classifier of another width stays as initialised."""
    from safetensors.torch import load_file

    if not checkpoint.endswith(".safetensors"):
        raise ModelError(
            f"network.checkpoint: found {checkpoint}, expected a .safetensors file (pickles are "
            f"not loaded)"
        )
    try:
        weights = load_file(checkpoint)
    except Exception as error:
        raise ModelError(
            f"network.checkpoint: {checkpoint} cannot be read as safetensors: {error}"
        ) from None
    model_state = model.state_dict()
    classifier = {
        name
        for name in weights
        if name.startswith("head.")
        and name in model_state
        and weights[name].shape != model_state[name].shape
    }
    wrong = sorted(
        n
        for n, v in weights.items()
        if n not in classifier and (n not in model_state or model_state[n].shape != v.shape)
    )
    missing = sorted(n for n in model_state if n not in weights and not n.startswith("head."))
    if wrong or missing:
        raise ModelError(
            f"network.checkpoint: {checkpoint} does not fit {type(model).__name__}: "
            f"{len(wrong)} tensors of another name or shape ({', '.join(wrong[:3])}), "
            f"{len(missing)} missing ({', '.join(missing[:3])})"
        )
    model.load_state_dict({n: v for n, v in weights.items() if n not in classifier}, strict=False)


def _create_model(network: NetworkParams, num_classes: int, pretrained: bool) -> Backbone:
    if not timm.is_model(network.model_name):
        suggestions = (
            ", ".join(timm.list_models(f"*{network.model_name[:8]}*")[:4])
            or "see timm.list_models('vit*')"
        )
        raise ModelError(
            f"network.model_name: found {network.model_name!r}, which timm {timm.__version__} "
            f"does not know; close: {suggestions}"
        )
    try:
        model = timm.create_model(
            network.model_name, pretrained=pretrained, num_classes=num_classes, **network.model_args
        )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"network.model_args: {network.model_name} cannot be built with {network.model_args}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(model, VisionTransformer | Eva):
        raise ModelError(
            f"network.model_name: {network.model_name} is a {type(model).__name__}; expected a "
            f"timm VisionTransformer or Eva"
        )
    sides, patch = model.patch_embed.img_size, model.patch_embed.patch_size
    if sides[0] % patch[0] or sides[1] % patch[1]:
        raise ModelError(
            f"network.model_args: patches of {patch[0]} x {patch[1]} px do not fill {sides[0]} x "
            f"{sides[1]} px; "
            "expected a patch_size that divides img_size"
        )
    if model.cls_token is None:
        raise ModelError(
            f"network.model_name: {network.model_name} has no CLS token, which classification and "
            f"global contrast need"
        )
    if model.global_pool != "token" or model.num_prefix_tokens < 1 or hasattr(model, "head_dist"):
        found = (
            "a second, distilled classifier"
            if hasattr(model, "head_dist")
            else f"global_pool {model.global_pool!r}"
        )
        raise ModelError(
            f"network.model_name: {network.model_name} has {found}; expected one classifier on "
            f"the CLS token, "
            "which global contrast and the probe read too: set model_args: {global_pool: token}, "
            "or choose another model"
        )
    if network.model_args.get("patch_drop_rate"):
        raise ModelError(
            f"network.model_args: found patch_drop_rate {network.model_args['patch_drop_rate']}, "
            f"expected none: "
            "patches that are dropped cannot be matched"
        )
    rows, columns = get_patch_grid(model)
    if rows != columns or rows * columns != model.patch_embed.num_patches or math.isclose(rows, 1):
        raise ModelError(
            f"network.model_name: {network.model_name} has a {rows} x {columns} patch grid; "
            f"expected a square one of 2 x 2 or more"
        )
    return model
