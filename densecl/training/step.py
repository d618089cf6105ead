"""One optimisation step, the same for every mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from densecl import distributed
from densecl.artifacts import Preprocessing
from densecl.config.params import Train
from densecl.contrast.infonce import Contrast
from densecl.contrast.memory import Rows
from densecl.contrast.objective import Objective
from densecl.contrast.view_pairs import Side, Views
from densecl.datasets.views.batch import ViewBatch
from densecl.metrics import correct_within
from densecl.network.preprocessing import normalise
from densecl.network.vit import Backbone, Tokens, tokens
from densecl.training.diagnostics.gradient_alignment import Conflict, conflict, unseen


class Outcome(NamedTuple):
    """What a step saw, as 0-dim tensors on the device and without gradient."""

    loss: Tensor
    classification_loss: Tensor
    top1: Tensor
    top5: Tensor
    contrast: Contrast
    conflict: Conflict
    gradient_norm: Tensor  # before clipping


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
        self.average = (
            ModelEmaV3(model, decay=settings.ema_decay, use_warmup=True)
            if settings.ema_decay
            else None
        )
        if settings.compile:
            compile_blocks(model, objective)

    def take(
        self, batch: ViewBatch, weight: float, step: int, progress: float = 0.0, look: bool = False
    ) -> Outcome:
        """One step with lambda = `weight` on a batch that lies on the model's device.

        All parts of an accumulated batch are scored against the same memory, which is written once,
        after the step. `progress` in [0, 1] is of the whole training; with `look` the negatives are
        watched and the two losses' gradients compared.
        """
        self.optimizer.zero_grad(set_to_none=True)
        seen: list[Outcome] = []
        rows: list[Rows] = []
        shares: list[float] = []
        for part in zip(
            *(column.chunk(self.settings.grad_accumulation) for column in batch), strict=True
        ):
            outcome, kept = self.score(ViewBatch(*part), weight, look and not seen)
            shares.append(
                len(part[0]) / len(batch.labels)
            )  # a small set's batch may not divide evenly
            (outcome.loss * shares[-1]).backward()
            seen.append(_detached(outcome))
            rows.append(kept)
        remembered = Rows(*(torch.cat(column) for column in zip(*rows, strict=True)))
        norm = self.update(remembered, step, progress)
        return _over_processes(_mean(seen, shares))._replace(gradient_norm=norm)

    def score(self, batch: ViewBatch, weight: float, look: bool) -> tuple[Outcome, Rows]:
        """Both losses of a batch, with their graph."""
        with self.autocast():
            views = self.views(batch)
            contrast, rows = self.objective.score(views, watch=look)
        sides = (views.first.tokens, views.second.tokens)
        classification = (
            self.classify(sides[0], batch.labels) + self.classify(sides[1], batch.labels)
        ) / 2
        loss = (1 - weight) * classification + weight * contrast.loss
        pull = unseen(loss)
        if look and contrast.loss.requires_grad:
            pull = conflict(self.model, classification, contrast.loss)
        top1, top5 = (
            correct_within(sides[0].logits.detach(), batch.labels, k).float().mean() for k in (1, 5)
        )
        return Outcome(loss, classification, top1, top5, contrast, pull, loss.detach()), rows

    def autocast(self) -> torch.autocast:
        kind = next(self.model.parameters()).device.type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16")

    def views(self, batch: ViewBatch) -> Views:
        """Tokens of the two views from one forward pass."""
        images = normalise(torch.cat([batch.first, batch.second]), self.values)
        halves = [part.chunk(2) for part in (*tokens(self.model, images), images)]
        geometries = (batch.first_geometry, batch.second_geometry)
        first, second = (
            Side(Tokens(*(h[i] for h in halves[:3])), halves[3][i], geometries[i]) for i in (0, 1)
        )
        return Views(first, second, batch.image_ids, batch.labels)

    def classify(self, seen: Tokens, labels: Tensor) -> Tensor:
        """Cross-entropy of one view."""
        logits = seen.logits.to(torch.promote_types(seen.logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)

    def update(self, rows: Rows, step: int, progress: float) -> Tensor:
        """Average over processes, clip, step, then remember and let averages follow; the gradient's
        norm before clipping.
        """
        distributed.average_gradients(self.trained)
        # The model's norm apart: with lambda = 0 the objective's zeros then leave it, as in mode
        # none, the same to the bit.
        norm = _norm(self.model)
        norm = torch.hypot(norm, _norm(self.objective).to(norm))
        nn.utils.clip_grads_with_norm_(self.trained, self.settings.grad_clip or torch.inf, norm)
        self.optimizer.step()
        self.objective.after(self.model, rows, step, progress)
        if self.average:
            self.average.update(self.model, step)
        return norm.detach()


def compile_blocks(model: Backbone, objective: Objective) -> None:
    """One compiled graph for the blocks of the model, and one for those of a momentum copy; the
    rest runs as written.
    """
    import torch._functorch.config as functorch

    functorch.donated_buffer = (
        False  # the two losses' gradients are compared on a graph that is walked again
    )
    for part in (model, *(m for m in objective.modules() if isinstance(m, Backbone))):
        for block in part.blocks:
            block.compile()


def _norm(module: nn.Module) -> Tensor:
    """Of all its gradients; 0 without any."""
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def _detached(outcome: Outcome) -> Outcome:
    plain = {n: v.detach() for n, v in outcome._asdict().items() if isinstance(v, Tensor)}
    contrast, pull = (
        Contrast(*(v.detach() for v in outcome.contrast)),
        Conflict(*(v.detach() for v in outcome.conflict)),
    )
    return outcome._replace(**plain, contrast=contrast, conflict=pull)


def _over_processes(outcome: Outcome) -> Outcome:
    """The figures of the whole batch, the same in every process."""
    if distributed.size() == 1:
        return outcome
    columns = [v for v in outcome if isinstance(v, Tensor)]
    flat = iter(
        distributed.mean(
            torch.stack(
                [v.to(outcome.loss) for v in (*columns, *outcome.contrast, *outcome.conflict)]
            )
        )
    )
    whole = {
        name: next(flat) for name, value in outcome._asdict().items() if isinstance(value, Tensor)
    }
    return outcome._replace(
        **whole,
        contrast=Contrast(*(next(flat) for _ in Contrast._fields)),
        conflict=Conflict(*(next(flat) for _ in Conflict._fields)),
    )


def _mean(parts: Sequence[Outcome], shares: Sequence[float]) -> Outcome:
    """Means over the parts of an accumulated batch by their shares of the images; what only some
    parts saw, over those.
    """
    if len(parts) == 1:
        return parts[0]

    def mean(values: Sequence[Tensor]) -> Tensor:
        column = torch.stack([v.to(parts[0].loss) for v in values])
        weights = column.new_tensor(shares) * ~column.isnan()
        return (column.nan_to_num() * weights).sum() / weights.sum()

    whole = {
        n: mean([getattr(p, n) for p in parts])
        for n in Outcome._fields
        if n not in ("contrast", "conflict")
    }
    contrast = Contrast(
        *(mean(column) for column in zip(*(p.contrast for p in parts), strict=True))
    )
    pull = Conflict(*(mean(column) for column in zip(*(p.conflict for p in parts), strict=True)))
    return Outcome(**whole, contrast=contrast, conflict=pull)
