"""Do the two losses pull the same way? Measured where the paths to their heads part."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from densecl import distributed
from densecl.network.vit import Backbone


class Conflict(NamedTuple):
    """Gradients of the two losses, each unweighted, at the last block's weights; NaN where not
    looked at.
    """

    classification: Tensor  # norm
    contrast: Tensor  # norm
    cosine: Tensor  # below 0: they work against each other (Yu et al. 2020)


def unseen(like: Tensor) -> Conflict:
    nothing = like.detach().new_full((), torch.nan)
    return Conflict(nothing, nothing, nothing)


def conflict(model: Backbone, classification: Tensor, contrast: Tensor) -> Conflict:
    """Costs one more backward pass through the heads and the last block only; the graph stays."""
    shared = list(model.blocks[-1].parameters())
    pulls = [
        distributed.mean(
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]
            ).float()
        )
        for loss in (classification, contrast)
    ]
    one, other = (pull.norm() for pull in pulls)
    # 0 / 0 is NaN: without negatives the contrastive loss pulls nowhere.
    return Conflict(one, other, pulls[0] @ pulls[1] / (one * other))
