"""Patch tokens of some blocks. B images of N patches, E features."""

from collections.abc import Mapping

import torch
from torch import Tensor

from densecl.evaluation.probing.context import ProbeContext
from densecl.network.precision import use_fp32_products
from densecl.network.vit import Backbone, forward_blocks


def compute_tokens(
    context: ProbeContext, images: Tensor, blocks: Mapping[str, int]
) -> dict[str, Tensor]:
    """Patch tokens fp32 [B, N, E] of uint8 images by block, after the final norm."""
    context.evaluator.predictor.images_run += len(images)
    return compute_model_tokens(context.model, context.normalise(images), blocks)


def compute_model_tokens(
    model: Backbone, images: Tensor, blocks: Mapping[str, int]
) -> dict[str, Tensor]:
    """Those of normalised images [B, 3, H, W]."""
    with torch.inference_mode(), use_fp32_products():
        outputs = forward_blocks(model, images, list(blocks.values()))
    return {name: patches.float() for name, (_, patches) in zip(blocks, outputs, strict=True)}
