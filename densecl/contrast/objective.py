"""What the modes share: none's empty objective, and the projection, keys, memory and loss of dense
and global.

Letters: B images, K memory, Q queries, R rows remembered, D projection.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from densecl import distributed
from densecl.config.params import GlobalContrastParams
from densecl.contrast.infonce import InfoNCEOutput, info_nce, weight_by_queries
from densecl.contrast.key_encoder import MomentumKeyEncoder, SharedKeyEncoder
from densecl.contrast.memory import Memory, MemoryEntries
from densecl.contrast.memory_softmax import NegativeMask
from densecl.contrast.temperature import Temperature
from densecl.contrast.view_pairs import PositivePairs, ViewPair
from densecl.network.heads import ProjectionHead
from densecl.network.vit import Backbone, get_patch_grid


class Objective(nn.Module):
    """Mode none: no pairs, a contrastive loss of 0, nothing to remember."""

    lambda_weight = 0.0  # target lambda

    def forward(
        self,
        views: ViewPair,
        diagnostics: bool = True,  # noqa: ARG002
    ) -> tuple[InfoNCEOutput, MemoryEntries]:
        """Contrast of the two views (cosines of negatives only with `diagnostics`), and the rows to
        remember after the step.
        """
        logits = views.view1.tokens.logits
        zero, empty = logits.new_zeros(()), logits.new_zeros(0)
        entries = MemoryEntries(empty, views.image_ids[:0], views.class_ids[:0])
        nan = zero * torch.nan
        return InfoNCEOutput(zero, nan, nan, nan, zero, zero), entries

    def update_after_step(
        self, model: Backbone, entries: MemoryEntries, step: int, progress: float
    ) -> None:
        """Called after the optimiser's step: remember the rows just scored, and let slow copies
        follow.
        """

    def compute_lambda_weight(self, epoch: float) -> float:  # noqa: ARG002
        """Weight of the contrastive loss at a fractional epoch."""
        return 0.0

    def collect_metrics(self) -> dict[str, float]:
        """What to watch of the objective itself, by the names of history.csv."""
        return {}

    @property
    def memory_size(self) -> int:
        """Entries of the memory; 0 without one."""
        return 0


class ContrastiveObjective(Objective, ABC):
    """Shared by dense and global: projection, keys, memory, temperature, InfoNCE and the ramp of
    lambda.
    """

    def __init__(
        self,
        settings: GlobalContrastParams,
        model: Backbone,
        queue_size: int,
        seed: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings, self.generator, self.lambda_weight = (
            settings,
            generator,
            settings.lambda_weight,
        )
        self.grid = get_patch_grid(model)
        self.head = ProjectionHead(model.embed_dim, settings.dense_dim, seed)
        self.key_encoder = (
            MomentumKeyEncoder(model, self.head, settings.key_momentum)
            if settings.key_encoder == "momentum"
            else SharedKeyEncoder()
        )
        self.temperature = Temperature(settings.temperature, settings.learnable_temp)
        self.memory = Memory(queue_size, settings.dense_dim)

    def forward(
        self, views: ViewPair, diagnostics: bool = True
    ) -> tuple[InfoNCEOutput, MemoryEntries]:
        """InfoNCE of this mode's pairs against the memory as it stood before this step.

        `symmetric` scores view 2 against view 1 as well; both directions' keys are remembered.
        """
        directions = [self.build_pairs(views)]
        if self.settings.symmetric:
            directions.append(
                self.build_pairs(views._replace(view1=views.view2, view2=views.view1))
            )
        gathered = [
            MemoryEntries(*distributed.all_gather_rows(*pairs.memory_entries))
            for pairs in directions
        ]
        entries = MemoryEntries(*(torch.cat(part) for part in zip(*gathered, strict=True)))
        queries, keys, image_ids, class_ids = (
            torch.cat(part) for part in zip(*(pairs[:4] for pairs in directions), strict=True)
        )
        mask_ids = self._build_negative_mask(image_ids, class_ids)._asdict()
        output = info_nce(
            queries, keys, self.negatives, self.temperature(), **mask_ids, diagnostics=diagnostics
        )
        return weight_by_queries(output, len(queries)), entries

    @abstractmethod
    def build_pairs(self, views: ViewPair) -> PositivePairs:
        """Queries of view 1 and keys of view 2, as this mode pairs them."""

    @property
    def negatives(self) -> Tensor:
        """[filled, D] of the memory, in no order that matters."""
        return self.memory.buffer[: self.memory.filled]

    def _build_negative_mask(self, image_ids: Tensor, class_ids: Tensor) -> NegativeMask:
        """Which entries are no negatives: those of the query's image; with `negatives:
        other_class`, of its class.
        """
        filled = self.memory.filled
        mask = NegativeMask(image_ids, self.memory.buffer_image_ids[:filled])
        if self.settings.negatives == "other_class":
            mask = mask._replace(
                query_classes=class_ids, memory_classes=self.memory.buffer_class_ids[:filled]
            )
        return mask

    def update_after_step(
        self, model: Backbone, entries: MemoryEntries, step: int, progress: float
    ) -> None:
        self.memory.write(*entries, step)
        self.temperature.clamp_()
        self.key_encoder.update_from(model, self.head, progress)

    def compute_lambda_weight(self, epoch: float) -> float:
        """The target, or with `contrastive_weight_adaptive` a half-cosine from 0 to it over
        `ramp_epochs`.
        """
        if not self.settings.contrastive_weight_adaptive:
            return self.lambda_weight
        progress = min(1.0, epoch / self.settings.ramp_epochs)
        return self.lambda_weight * (1 - math.cos(math.pi * progress)) / 2

    def collect_metrics(self) -> dict[str, float]:
        """Diversity of the memory, and the temperature."""
        return self.memory.measure_diversity() | {"temperature": float(self.temperature().detach())}

    @property
    def memory_size(self) -> int:
        return self.memory.size
