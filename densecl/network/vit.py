"""timm vision transformers by name, and their tokens."""

from typing import Any, NamedTuple

import timm
import torch
from safetensors.torch import load_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from densecl.config.params import NetworkParams
from densecl.errors import DenseclError
from densecl.seeding import derive_seed

Backbone = VisionTransformer | Eva


class Tokens(NamedTuple):
    """The outputs for one view; CLS and patch tokens after the final norm."""

    cls: Tensor  # [B, E]
    patches: Tensor  # [B, N, E]
    logits: Tensor  # [B, C]


class ModelError(DenseclError):
    """A model name, argument or weights file that cannot be used."""


def build_model(
    network: NetworkParams, num_classes: int, seed: int, drop_path: float = 0.0
) -> Backbone:
    """A backbone with a linear classifier; the initial weights depend on the seed only.

    Raises ModelError if the model cannot be built or trained here.
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
    """The patch grid of a model; ModelError if it cannot be trained here. Allocates no weights."""
    with torch.device("meta"):
        model = _create_model(network, num_classes, pretrained=False)
    return get_patch_grid(model)


def get_patch_grid(model: Backbone) -> tuple[int, int]:
    """Rows and columns of the patch grid."""
    rows, columns = model.patch_embed.grid_size
    return int(rows), int(columns)


def forward_tokens(model: Backbone, images: Tensor) -> Tokens:
    """Tokens of normalised images [B, 3, H, W]."""
    features = model.forward_features(images)  # [B, prefix + N, E]
    return Tokens(
        features[:, 0], features[:, model.num_prefix_tokens :], model.forward_head(features)
    )


def forward_last_two_blocks(model: Backbone, images: Tensor) -> tuple[Tokens, Tensor]:
    """The result of `forward_tokens`, and the patches [B, N, E] of the last block but one.

    Both after the final norm.
    """
    outputs: Any = model.forward_intermediates(
        images, indices=[len(model.blocks) - 2], norm=True, output_fmt="NLC"
    )
    last, (previous_patches,) = outputs
    return Tokens(
        last[:, 0], last[:, model.num_prefix_tokens :], model.forward_head(last)
    ), previous_patches


def load_initial_weights(model: Backbone, checkpoint: str) -> None:
    """Load a local safetensors state dict; a classifier of another width is not loaded.

    Raises ModelError if the file cannot be read or does not fit the model.
    """
    try:
        weights = load_file(checkpoint)
    except Exception as error:
        raise ModelError(
            f"network.checkpoint: {checkpoint} cannot be read as safetensors: {error}"
        ) from None
    expected = {name: value.shape for name, value in model.state_dict().items()}
    wrong = [
        name
        for name, value in weights.items()
        if value.shape != expected.get(name) and not (name in expected and name.startswith("head."))
    ]
    missing = [n for n in expected if n not in weights and not n.startswith("head.")]
    if wrong or missing:
        raise ModelError(
            f"network.checkpoint: {checkpoint} does not fit {type(model).__name__}: "
            f"{len(wrong)} tensors of another name or shape ({', '.join(sorted(wrong)[:3])}), "
            f"{len(missing)} missing ({', '.join(sorted(missing)[:3])})"
        )
    fitting = {name: value for name, value in weights.items() if value.shape == expected[name]}
    model.load_state_dict(fitting, strict=False)


def _create_model(network: NetworkParams, num_classes: int, pretrained: bool) -> Backbone:
    name = network.model_name
    if not timm.is_model(name):
        close = ", ".join(timm.list_models(f"*{name[:8]}*")[:4]) or "see timm.list_models('vit*')"
        raise ModelError(
            f"network.model_name: found {name!r}, which timm {timm.__version__} does not know; "
            f"close: {close}"
        )
    try:
        model = timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, **network.model_args
        )
    except (TypeError, AssertionError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"network.model_args: {name} cannot be built with {network.model_args}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(model, VisionTransformer | Eva):
        raise ModelError(
            f"network.model_name: {name} is a {type(model).__name__}; expected a timm "
            f"VisionTransformer or Eva"
        )
    _check_trainable(model, network)
    return model


def _check_trainable(model: Backbone, network: NetworkParams) -> None:
    """Raise ModelError unless there are a CLS token, one classifier on it, and a square grid."""
    name, embed = network.model_name, model.patch_embed
    (height, width), patch, (rows, columns) = embed.img_size, embed.patch_size, embed.grid_size
    pooling = "" if model.global_pool == "token" else f"global_pool {model.global_pool!r}"
    if hasattr(model, "head_dist"):
        pooling = "a second, distilled classifier"
    patch_drop_rate = network.model_args.get("patch_drop_rate")
    rules = (
        (
            height % patch[0] == 0 and width % patch[1] == 0,
            f"network.model_args: patches of {patch[0]} x {patch[1]} px do not fill {height} x "
            f"{width} px; expected a patch_size that divides img_size",
        ),
        (
            model.cls_token is not None,
            f"network.model_name: {name} has no CLS token, which classification and the global "
            f"objective need",
        ),
        (
            not pooling and model.num_prefix_tokens >= 1,
            f"network.model_name: {name} has {pooling or 'no prefix token'}; expected one "
            f"classifier on the CLS token, which the global objective and the probe read too: set "
            f"model_args: {{global_pool: token}}, or choose another model",
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
