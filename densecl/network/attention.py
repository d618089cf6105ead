"""What the CLS token of a vision transformer attends to."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from densecl.network.create import Backbone, ModelError
from densecl.network.precision import use_fp32_products

MATRIX_BYTES = 2**30  # of attention between all tokens, of the images that are run at once


def compute_cls_attention(model: Backbone, images: Tensor) -> Tensor:
    """Softmax attention fp32 [B, heads, N] of CLS to the N patch tokens in the last block.

    `images`: normalised [B, 3, H, W], on the model's device. Rows sum to 1 minus what CLS and the
    other prefix tokens get. ModelError if the last block has no such attention.
    """
    layer, prefix = find_attention(model), model.num_prefix_tokens
    per_image = 4 * layer.num_heads * (model.patch_embed.num_patches + prefix) ** 2
    parts = []
    with torch.inference_mode(), use_fp32_products():
        for part in images.split(max(1, MATRIX_BYTES // per_image)):
            with record_attention(layer) as recorded:
                model.forward_features(part)
            (attention,) = recorded
            # A copy: a view would keep the matrix in memory.
            parts.append(attention[:, :, 0, prefix:].float().clone())
            del attention
            recorded.clear()
    return torch.cat(parts)


def find_attention(model: Backbone) -> Any:
    """The module of the last block that computes one softmax attention per head."""
    if model.cls_token is None:
        raise ModelError(
            f"{type(model).__name__} has no CLS token; expected one: a map of what CLS attends to "
            f"needs another model"
        )
    layers = [
        module
        for module in model.blocks[-1].modules()
        if hasattr(module, "fused_attn")
        and isinstance(getattr(module, "attn_drop", None), nn.Module)
    ]
    # Differential attention subtracts two maps per head; parallel blocks have several attentions.
    if len(layers) != 1 or hasattr(layers[0], "lambda_init"):
        names = ", ".join(type(layer).__name__ for layer in layers) or "no attention"
        raise ModelError(
            f"the last block of {type(model).__name__} has {names}; expected one softmax "
            f"attention: a map of what CLS attends to needs another model"
        )
    return layers[0]


@contextmanager
def record_attention(layer: Any) -> Iterator[list[Tensor]]:
    """The attention [B, heads, tokens, tokens] of each call of an attention module of timm.

    Fused attention never forms the matrix; without it, timm passes the matrix through `attn_drop`
    whatever norms, rotations and biases went into it.
    """
    recorded: list[Tensor] = []

    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        recorded.append(inputs[0])

    handle = layer.attn_drop.register_forward_pre_hook(record)
    fused, layer.fused_attn = layer.fused_attn, False
    try:
        yield recorded
    finally:
        layer.fused_attn = fused
        handle.remove()
