"""Do the two losses pull the same way? Measured where the paths to their heads part."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from densecl import distributed
from densecl.network.vit import Backbone


class GradientAlignment(NamedTuple):
    """Gradients of the two losses, each unweighted, at the last block's weights; NaN where not
    looked at.
    """

    classification: Tensor  # norm
    contrast: Tensor  # norm
    cosine: Tensor  # below 0: they work against each other (Yu et al. 2020)


def not_computed(like: Tensor) -> GradientAlignment:
    nan = like.detach().new_full((), torch.nan)
    return GradientAlignment(nan, nan, nan)


def compute_gradient_alignment(
    model: Backbone, classification: Tensor, contrast: Tensor
) -> GradientAlignment:
    """Costs one more backward pass through the heads and the last block only; the graph stays."""
    shared = list(model.blocks[-1].parameters())
    gradients = [
        distributed.all_reduce_mean(
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]
            ).float()
        )
        for loss in (classification, contrast)
    ]
    classification_norm, contrast_norm = (gradient.norm() for gradient in gradients)
    # 0 / 0 is NaN: without negatives the contrastive loss pulls nowhere.
    return GradientAlignment(
        classification_norm,
        contrast_norm,
        gradients[0] @ gradients[1] / (classification_norm * contrast_norm),
    )
