"""Key encoders: the trained model itself, or its exponential moving average."""

import copy
import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from densecl.network.vit import Backbone, Tokens, forward_tokens


class SharedKeyEncoder(nn.Module):
    """Keys come from the trained model and head, without gradient."""

    def forward(self, images: Tensor, view_tokens: Tokens) -> Tokens:  # noqa: ARG002
        """The tokens that the model has just computed for the queries, detached."""
        return Tokens(*(part.detach() for part in view_tokens))

    def get_key_head(self, query_head: nn.Module) -> nn.Module:
        """The head that projects the keys: that of the queries."""
        return query_head

    def update_from(self, model: Backbone, head: nn.Module, progress: float) -> None:
        """Nothing to update."""


class MomentumKeyEncoder(nn.Module):
    """Keys come from an exponential moving average of model and head (He et al. 2020).

    The momentum rises from `momentum` to 1 along a half cosine (Grill et al. 2020).
    """

    def __init__(self, model: Backbone, head: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.model, self.projection = copy.deepcopy(model).eval(), copy.deepcopy(head)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stays in evaluation mode: keys see no drop path."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, view_tokens: Tokens) -> Tokens:  # noqa: ARG002
        """The average model's tokens of one view's normalised images [B, 3, H, W]."""
        return forward_tokens(self.model, images)

    def get_key_head(self, query_head: nn.Module) -> Any:  # noqa: ARG002
        """The head that projects the keys: the average one."""
        return self.projection

    @torch.no_grad()
    def update_from(self, model: Backbone, head: nn.Module, progress: float) -> None:
        """average = m * average + (1 - m) * trained; `progress` in [0, 1] of the training run."""
        m = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        for average_module, trained_module in ((self.model, model), (self.projection, head)):
            parameters = zip(average_module.parameters(), trained_module.parameters(), strict=True)
            for average, trained in parameters:
                average.lerp_(trained, 1 - m)
