"""Who encodes the keys: the model itself, or a slow copy of it. Letters: B images."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from densecl.network.vit import Backbone, Tokens, forward_tokens


class SharedKeyEncoder(nn.Module):
    """Keys come from the trained model and head, as the spec has it; they carry no gradient."""

    def forward(self, images: Tensor, view_tokens: Tokens) -> Tokens:  # noqa: ARG002
        """Tokens for the keys of one view: those the model has just given."""
        return Tokens(*(part.detach() for part in view_tokens))

    def get_key_head(self, query_head: nn.Module) -> nn.Module:
        return query_head

    def update_from(self, model: Backbone, head: nn.Module, progress: float) -> None:
        """Nothing to update."""


class MomentumKeyEncoder(nn.Module):
    """Keys come from a moving average of model and head (He et al. 2020), its momentum
    cosine-ramped to 1 (Grill et al. 2020).
    """

    def __init__(self, model: Backbone, head: nn.Module, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.model, self.projection = copy.deepcopy(model).eval(), copy.deepcopy(head)
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> MomentumKeyEncoder:  # noqa: ARG002
        """Stays in evaluation mode: keys see no drop path."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, view_tokens: Tokens) -> Tokens:  # noqa: ARG002
        """Tokens of the copy for one view's normalised images [B, 3, H, W]."""
        return forward_tokens(self.model, images)

    def get_key_head(self, query_head: nn.Module) -> Any:  # noqa: ARG002
        return self.projection

    @torch.no_grad()
    def update_from(self, model: Backbone, head: nn.Module, progress: float) -> None:
        """Move by 1 - m towards the trained weights; `progress` in [0, 1] of the whole training."""
        m = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        for average_module, trained_module in ((self.model, model), (self.projection, head)):
            for average, trained in zip(
                average_module.parameters(), trained_module.parameters(), strict=True
            ):
                average.lerp_(trained, 1 - m)
