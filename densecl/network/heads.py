"""Projection heads, discarded after training."""

import torch
from torch import Tensor, nn

from densecl.seeding import derive_seed


class ProjectionHead(nn.Module):
    """[..., E] -> [..., D] in fp32: Linear-GELU-Linear, without batch norm.

    The head of MoCo v2 with the activation of a ViT.
    """

    def __init__(self, embed_dim: int, projection_dim: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "head"))
            self.layers = nn.Sequential(
                nn.Linear(embed_dim, embed_dim), nn.GELU(), nn.Linear(embed_dim, projection_dim)
            )

    def forward(self, features: Tensor) -> Tensor:
        """Projected features [..., D], not normalised."""
        projected: Tensor = self.layers(features)
        return projected.to(torch.promote_types(projected.dtype, torch.float32))
