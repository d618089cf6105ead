"""Backbones and their tokens."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densecl.config.params import NetworkParams
from densecl.network.create import Backbone, ModelError, create_backbone
from densecl.network.weights import check_initial_weights, load_initial_weights
from densecl.seeding import derive_seed

__all__ = [
    "Backbone",
    "ModelError",
    "Tokens",
    "build_model",
    "check_model",
    "forward_blocks",
    "forward_last_two_blocks",
    "forward_tokens",
    "get_patch_grid",
]


class Tokens(NamedTuple):
    """The outputs for one view; CLS and patch tokens after the final norm."""

    cls: Tensor  # [B, E]
    patches: Tensor  # [B, N, E]
    logits: Tensor  # [B, C]


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
        model = create_backbone(network, num_classes)
    if network.pretrained or network.checkpoint:
        load_initial_weights(model, network)
    return model


def check_model(network: NetworkParams, num_classes: int = 2) -> tuple[tuple[int, int], str]:
    """The patch grid of a model, and a sentence if its initial weights fit with a reservation.

    Raises ModelError if the model cannot be trained here, or not from its initial weights.
    Allocates no weights.
    """
    with torch.device("meta"):
        model = create_backbone(network, num_classes)
    has_weights = network.pretrained or network.checkpoint
    return get_patch_grid(model), check_initial_weights(model, network) if has_weights else ""


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


def forward_blocks(
    model: Backbone, images: Tensor, blocks: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """CLS token [B, E] and patch tokens [B, N, E] after each of these blocks (0 is the first, in
    rising order), after the final norm.
    """
    outputs: Any = model.forward_intermediates(
        images,
        indices=list(blocks),
        norm=True,
        output_fmt="NLC",
        return_prefix_tokens=True,
        intermediates_only=True,
    )
    return [(prefix[:, 0], patches) for patches, prefix in outputs]
