"""Cosine between the gradients of the two losses at the last block that both heads share."""

from __future__ import annotations

import torch
from torch import Tensor

from densecl import distributed
from densecl.network.vit import Backbone


def compute_gradient_alignment(
    model: Backbone, classification_loss: Tensor, contrastive_loss: Tensor
) -> dict[str, Tensor]:
    """Norms and cosine of both losses' unweighted gradients, averaged over ranks.

    A negative cosine means that the losses conflict (Yu et al. 2020); it is NaN where a gradient is
    0, as without negatives. Costs one more backward pass through the heads and the last block.
    """
    shared = list(model.blocks[-1].parameters())
    gradients = [
        distributed.all_reduce_mean(
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]
            ).float()
        )
        for loss in (classification_loss, contrastive_loss)
    ]
    classification, contrast = (gradient.norm() for gradient in gradients)
    return {
        "gradient_classification": classification,
        "gradient_contrast": contrast,
        "gradient_cosine": gradients[0] @ gradients[1] / (classification * contrast),
    }
