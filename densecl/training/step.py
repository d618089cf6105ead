"""One optimisation step, the same for every mode."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.contrast.infonce import Contrast
from densecl.contrast.objectives import Objective, Pairs
from densecl.datasets.views import ViewBatch
from densecl.metrics import correct_within
from densecl.network.preprocessing import normalise
from densecl.network.vit import Backbone, Tokens, tokens
from densecl.params import Train
from densecl.records import Preprocessing


class Outcome(NamedTuple):
    """What a step saw, on the device and without gradient."""

    loss: Tensor
    classification_loss: Tensor
    top1: Tensor
    top5: Tensor
    contrast: Contrast
    gradient_norm: Tensor
    cls: Tensor  # [B, E] of view 1


class Stepper:
    """Model, objective and optimiser together; `take` scores, steps, then writes the memory."""

    def __init__(
        self,
        model: Backbone,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        values: Preprocessing,
        settings: Train,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.values, self.settings = values, settings
        self.trained = [p for group in optimizer.param_groups for p in group["params"]]

    def take(self, batch: ViewBatch, weight: float, step: int) -> Outcome:
        """One step with lambda = `weight` on a batch that lies on the model's device."""
        first, second = self.both(batch)
        classification = (self.classify(first, batch.labels) + self.classify(second, batch.labels)) / 2
        contrast, pairs = self.objective.score(first, second, batch.image_ids, batch.labels)
        loss = (1 - weight) * classification + weight * contrast.loss
        norm = self.update(loss, pairs, step)
        top1, top5 = (correct_within(first.logits.detach(), batch.labels, k).float().mean() for k in (1, 5))
        seen = Contrast(*(value.detach() for value in contrast))
        return Outcome(loss.detach(), classification.detach(), top1, top5, seen, norm, first.cls.detach())

    def both(self, batch: ViewBatch) -> tuple[Tokens, Tokens]:
        """Tokens of the two views from one forward pass."""
        seen = tokens(self.model, normalise(torch.cat([batch.first, batch.second]), self.values))
        halves = [part.chunk(2) for part in seen]
        return Tokens(*(h[0] for h in halves)), Tokens(*(h[1] for h in halves))

    def classify(self, seen: Tokens, labels: Tensor) -> Tensor:
        """Cross-entropy of one view."""
        return F.cross_entropy(seen.logits.float(), labels, label_smoothing=self.settings.label_smoothing)

    def update(self, loss: Tensor, pairs: Pairs, step: int) -> Tensor:
        """Backward, clip, step, then remember; the gradient's norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained, self.settings.grad_clip or torch.inf)
        self.optimizer.step()
        self.objective.remember(pairs, step)
        return norm.detach()
