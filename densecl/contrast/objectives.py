"""What each mode adds to classification: dense and global differ only in how pairs are formed.

Letters: B images, N patches, M sampled, Q queries (B or B*M), K memory, E embedding, D projection.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from densecl.contrast.correspondence import match_patches
from densecl.contrast.infonce import Contrast, hardest_negative, info_nce
from densecl.contrast.memory import Memory
from densecl.contrast.sampling import SAMPLERS
from densecl.network.heads import ProjectionHead
from densecl.network.vit import Tokens
from densecl.params import DenseContrast, GlobalContrast

BOUNDS = (0.01, 1.0)  # of a learnt temperature


class Pairs(NamedTuple):
    """Positives: row i of queries belongs to row i of keys."""

    queries: Tensor  # [Q, D] of view 1, L2-normalised fp32
    keys: Tensor  # [Q, D] of view 2, the same, without gradient
    image_ids: Tensor  # [Q]
    class_ids: Tensor  # [Q]


class Temperature(nn.Module):
    """Fixed, or learnt as its logarithm (Radford et al. 2021) within BOUNDS."""

    def __init__(self, start: float, learnt: bool) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.tensor(math.log(start)), requires_grad=learnt)

    def forward(self) -> Tensor:
        low, high = (math.log(b) for b in BOUNDS)
        return self.log.clamp(low, high).exp()


class Objective(nn.Module):
    """Mode none: no pairs, a contrastive loss of 0, nothing to remember."""

    weight = 0.0  # target lambda

    def score(self, first: Tokens, second: Tokens, image_ids: Tensor, class_ids: Tensor) -> tuple[Contrast, Pairs]:  # noqa: ARG002
        """Contrast of the two views' tokens, and the pairs to remember after the step."""
        zero, nothing = first.logits.new_zeros(()), first.logits.new_zeros(0)
        pairs = Pairs(nothing, nothing, image_ids[:0], class_ids[:0])
        return Contrast(zero, zero * torch.nan, zero * torch.nan, zero * torch.nan, zero), pairs

    def remember(self, pairs: Pairs, step: int) -> None:
        """Write the keys just scored to the memory; called after the optimiser's step."""

    def lambda_at(self, epoch: float) -> float:  # noqa: ARG002
        """Weight of the contrastive loss at a fractional epoch."""
        return 0.0

    def state(self) -> dict[str, float]:
        """What to watch of the objective itself, by the names of history.csv."""
        return {}

    @property
    def memory_rows(self) -> int:
        """Entries of the memory; 0 without one."""
        return 0


class Contrastive(Objective, ABC):
    """Shared by dense and global: projection, memory, temperature, InfoNCE and the ramp of lambda."""

    def __init__(
        self, settings: GlobalContrast, embed_dim: int, queue_size: int, seed: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.settings, self.generator, self.weight = settings, generator, settings.lambda_weight
        self.head = ProjectionHead(embed_dim, settings.dense_dim, seed)
        self.temperature = Temperature(settings.temperature, settings.learnable_temp)
        self.memory = Memory(queue_size, settings.dense_dim)

    def score(self, first: Tokens, second: Tokens, image_ids: Tensor, class_ids: Tensor) -> tuple[Contrast, Pairs]:
        """InfoNCE of this mode's pairs against the memory as it stood before this step."""
        pairs = self.pairs(first, second, image_ids, class_ids)
        filled = self.memory.filled
        contrast = info_nce(
            pairs.queries, pairs.keys, self.memory.ring[:filled], self.temperature(),
            query_ids=pairs.image_ids, memory_ids=self.memory.ring_image_ids[:filled],
        )  # fmt: skip
        return contrast, pairs

    @abstractmethod
    def pairs(self, first: Tokens, second: Tokens, image_ids: Tensor, class_ids: Tensor) -> Pairs:
        """Queries of view 1 and keys of view 2, as this mode pairs them."""

    def remember(self, pairs: Pairs, step: int) -> None:
        self.memory.write(pairs.keys, pairs.image_ids, pairs.class_ids, step)

    def lambda_at(self, epoch: float) -> float:
        """The target, or with `contrastive_weight_adaptive` a half-cosine from 0 to it over `ramp_epochs`."""
        if not self.settings.contrastive_weight_adaptive:
            return self.weight
        share = min(1.0, epoch / self.settings.ramp_epochs)
        return self.weight * (1 - math.cos(math.pi * share)) / 2

    def state(self) -> dict[str, float]:
        """Diversity of the memory (images behind its entries), its filled share, and the temperature."""
        filled = self.memory.filled
        return {
            "queue_unique_images": len(self.memory.ring_image_ids[:filled].unique()),
            "queue_filled": filled / self.memory.size,
            "temperature": float(self.temperature().detach()),
        }

    @property
    def memory_rows(self) -> int:
        return self.memory.size


class Global(Contrastive):
    """Image level: the CLS tokens of an image's two views are a pair (Q = B)."""

    def pairs(self, first: Tokens, second: Tokens, image_ids: Tensor, class_ids: Tensor) -> Pairs:
        with torch.no_grad():
            keys = self.head(second.cls)
        return Pairs(self.head(first.cls), keys, image_ids, class_ids)


class Dense(Contrastive):
    """Patch level: M patches of view 1, each with its most similar patch of view 2 (Q = B*M)."""

    settings: DenseContrast

    def pairs(self, first: Tokens, second: Tokens, image_ids: Tensor, class_ids: Tensor) -> Pairs:
        dense1 = self.head(first.patches)  # [B, N, D]
        with torch.no_grad():
            dense2 = self.head(second.patches)
            backbone = self.settings.correspondence_features == "backbone"
            index = (
                match_patches(first.patches, second.patches) if backbone else match_patches(dense1, dense2)
            )  # [B, N]
            matched = torch.take_along_dim(dense2, index[..., None], dim=1)  # [B, N, D]
            count = min(self.settings.patches_per_image, dense1.shape[1])
            hardness = (
                self._hardness(dense1, matched, image_ids) if self.settings.sampling_strategy == "hardest" else None
            )
            picks = SAMPLERS[self.settings.sampling_strategy](dense1, count, self.generator, hardness)[
                ..., None
            ]  # [B, M, 1]
            keys = torch.take_along_dim(matched, picks, dim=1).flatten(0, 1)
        queries = torch.take_along_dim(dense1, picks, dim=1).flatten(0, 1)  # [B*M, D]
        return Pairs(queries, keys, image_ids.repeat_interleave(count), class_ids.repeat_interleave(count))

    def _hardness(self, first: Tensor, matched: Tensor, image_ids: Tensor) -> Tensor | None:
        """[B, N] similarity of the hardest negative less the positive's; None while the memory is empty."""
        filled, patches = self.memory.filled, first.shape[1]
        if not filled:
            return None
        hardest = hardest_negative(
            first.flatten(0, 1),
            self.memory.ring[:filled],
            image_ids.repeat_interleave(patches),
            self.memory.ring_image_ids[:filled],
        )
        return hardest.view(len(first), patches) - (first * matched).sum(-1)


def build_objective(
    settings: GlobalContrast | None, embed_dim: int, queue_size: int, seed: int, generator: torch.Generator
) -> Objective:
    """The objective of a mode's settings; None is mode none."""
    if settings is None:
        return Objective()
    kind = Dense if isinstance(settings, DenseContrast) else Global
    return kind(settings, embed_dim, queue_size, seed, generator)


def writes_per_image(settings: GlobalContrast | None, patches: int) -> int:
    """Keys that one image adds to the memory."""
    return min(settings.patches_per_image, patches) if isinstance(settings, DenseContrast) else 1
