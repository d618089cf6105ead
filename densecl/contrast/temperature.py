"""The temperature of InfoNCE, fixed or learned."""

import math

import torch
from torch import Tensor, nn

TEMPERATURE_BOUNDS = (0.01, 1.0)  # of a learned temperature


class Temperature(nn.Module):
    """A scalar stored as its logarithm (Radford et al. 2021), [1]: FSDP shards no scalars.

    Call `clamp_` after each step to keep a learned temperature within TEMPERATURE_BOUNDS.
    """

    def __init__(self, initial: float, learnable: bool) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor([math.log(initial)]), requires_grad=learnable)

    def forward(self) -> Tensor:
        """The temperature, a scalar."""
        return self.log.exp()[0]

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the parameter in place.

        Clamped in `forward`, it would have no gradient beyond the bounds and never return.
        """
        low, high = (math.log(b) for b in TEMPERATURE_BOUNDS)
        self.log.clamp_(low, high)
