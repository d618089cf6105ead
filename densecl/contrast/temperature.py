"""The temperature of InfoNCE."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

TEMPERATURE_BOUNDS = (0.01, 1.0)  # of a learnt temperature


class Temperature(nn.Module):
    """Fixed, or learnt as its logarithm (Radford et al. 2021) within TEMPERATURE_BOUNDS; call
    `clamp_` after each step.
    """

    def __init__(self, initial: float, learnable: bool) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(initial)), requires_grad=learnable)

    def forward(self) -> Tensor:
        return self.log.exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamps the parameter itself: clamped in `forward` it would have no gradient outside, and
        never come back.
        """
        low, high = (math.log(b) for b in TEMPERATURE_BOUNDS)
        self.log.clamp_(low, high)
