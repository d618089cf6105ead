"""A linear classifier on frozen CLS features: what lambda = 1 is evaluated with. Letters: B images,
E embedding, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

L2_PENALTY = 1e-4  # on the squared weights of standardised features
MAX_ITERATIONS = 200


def fit_linear_probe(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [C, E] and bias [C] of multinomial logistic regression on features [B, E], by L-BFGS
    to convergence.

    Features are standardised for the fit; the result takes them as they are. Deterministic.
    """
    features = features.double()
    mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
    x = (features - mean) / std
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=MAX_ITERATIONS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        loss = (
            F.cross_entropy(F.linear(x, weight, bias), labels) + L2_PENALTY * weight.square().sum()
        )
        loss.backward()
        return float(loss.detach())

    optimizer.step(closure)
    scaled_weight = weight.detach() / std
    return scaled_weight.float(), (bias.detach() - scaled_weight @ mean).float()
