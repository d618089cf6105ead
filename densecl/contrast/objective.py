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
from densecl.config.params import GlobalContrast
from densecl.contrast.infonce import Contrast, info_nce, share_of_mean
from densecl.contrast.key_encoder import MomentumKeys, SharedKeys
from densecl.contrast.memory import Memory, Rows
from densecl.contrast.memory_softmax import Ids
from densecl.contrast.temperature import Temperature
from densecl.contrast.view_pairs import Pairs, Views
from densecl.network.heads import ProjectionHead
from densecl.network.vit import Backbone, grid


class Objective(nn.Module):
    """Mode none: no pairs, a contrastive loss of 0, nothing to remember."""

    weight = 0.0  # target lambda

    def score(self, views: Views, watch: bool = True) -> tuple[Contrast, Rows]:  # noqa: ARG002
        """Contrast of the two views (cosines of negatives only with `watch`), and the rows to
        remember after the step.
        """
        logits = views.first.tokens.logits
        zero, nothing = logits.new_zeros(()), logits.new_zeros(0)
        rows = Rows(nothing, views.image_ids[:0], views.class_ids[:0])
        unseen = zero * torch.nan
        return Contrast(zero, unseen, unseen, unseen, zero, zero), rows

    def after(self, model: Backbone, rows: Rows, step: int, progress: float) -> None:
        """Called after the optimiser's step: remember the rows just scored, and let slow copies
        follow.
        """

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
    """Shared by dense and global: projection, keys, memory, temperature, InfoNCE and the ramp of
    lambda.
    """

    def __init__(
        self,
        settings: GlobalContrast,
        model: Backbone,
        queue_size: int,
        seed: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.settings, self.generator, self.weight = settings, generator, settings.lambda_weight
        self.grid = grid(model)
        self.head = ProjectionHead(model.embed_dim, settings.dense_dim, seed)
        self.key_encoder = (
            MomentumKeys(model, self.head, settings.key_momentum)
            if settings.key_encoder == "momentum"
            else SharedKeys()
        )
        self.temperature = Temperature(settings.temperature, settings.learnable_temp)
        self.memory = Memory(queue_size, settings.dense_dim)

    def score(self, views: Views, watch: bool = True) -> tuple[Contrast, Rows]:
        """InfoNCE of this mode's pairs against the memory as it stood before this step.

        `symmetric` scores view 2 against view 1 as well; both directions' keys are remembered.
        """
        sides = [self.pairs(views)]
        if self.settings.symmetric:
            sides.append(self.pairs(views._replace(first=views.second, second=views.first)))
        remembered = [Rows(*distributed.all_rows(*pairs.kept)) for pairs in sides]
        kept = Rows(*(torch.cat(part) for part in zip(*remembered, strict=True)))
        queries, keys, image_ids, class_ids = (
            torch.cat(part) for part in zip(*(pairs[:4] for pairs in sides), strict=True)
        )
        ids = self._ids(image_ids, class_ids)._asdict()
        contrast = info_nce(queries, keys, self.negatives, self.temperature(), **ids, watch=watch)
        return share_of_mean(contrast, len(queries)), kept

    @abstractmethod
    def pairs(self, views: Views) -> Pairs:
        """Queries of view 1 and keys of view 2, as this mode pairs them."""

    @property
    def negatives(self) -> Tensor:
        """[filled, D] of the memory, in no order that matters."""
        return self.memory.ring[: self.memory.filled]

    def _ids(self, image_ids: Tensor, class_ids: Tensor) -> Ids:
        """Which entries are no negatives: those of the query's image; with `negatives:
        other_class`, of its class.
        """
        filled = self.memory.filled
        ids = Ids(image_ids, self.memory.ring_image_ids[:filled])
        if self.settings.negatives == "other_class":
            ids = ids._replace(
                query_classes=class_ids, memory_classes=self.memory.ring_class_ids[:filled]
            )
        return ids

    def after(self, model: Backbone, rows: Rows, step: int, progress: float) -> None:
        self.memory.write(*rows, step)
        self.temperature.bound()
        self.key_encoder.follow(model, self.head, progress)

    def lambda_at(self, epoch: float) -> float:
        """The target, or with `contrastive_weight_adaptive` a half-cosine from 0 to it over
        `ramp_epochs`.
        """
        if not self.settings.contrastive_weight_adaptive:
            return self.weight
        share = min(1.0, epoch / self.settings.ramp_epochs)
        return self.weight * (1 - math.cos(math.pi * share)) / 2

    def state(self) -> dict[str, float]:
        """Diversity of the memory, and the temperature."""
        return self.memory.diversity() | {"temperature": float(self.temperature().detach())}

    @property
    def memory_rows(self) -> int:
        return self.memory.size
