"""A linear classifier on frozen CLS features: what lambda = 1 is evaluated with. Letters: B images,
E embedding, C classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTY = 1e-4  # on the squared weights of standardised features
ROUNDS = 200


def fit_probe(features: Tensor, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [C, E] and bias [C] of multinomial logistic regression on features [B, E], by L-BFGS
    to convergence.

    Features are standardised for the fit; the result takes them as they are. Deterministic.
    """
    features = features.double()
    mean, spread = features.mean(0), features.std(0).clamp_min(1e-6)
    x = (features - mean) / spread
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ROUNDS, tolerance_grad=1e-7, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), labels) + PENALTY * weight.square().sum()
        loss.backward()
        return float(loss.detach())

    solver.step(closure)
    scaled = weight.detach() / spread
    return scaled.float(), (bias.detach() - scaled @ mean).float()
