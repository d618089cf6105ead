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
from densecl.config.params import TrainParams
from densecl.contrast.infonce import InfoNCEOutput
from densecl.contrast.memory import MemoryEntries
from densecl.contrast.objective import Objective
from densecl.contrast.view_pairs import EncodedView, ViewPair
from densecl.datasets.views.batch import ViewBatch
from densecl.metrics import is_topk_correct
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, Tokens, forward_tokens
from densecl.training.diagnostics.gradient_alignment import (
    GradientAlignment,
    compute_gradient_alignment,
    not_computed,
)


class StepMetrics(NamedTuple):
    """What a step saw, as 0-dim tensors on the device and without gradient."""

    loss: Tensor
    classification_loss: Tensor
    top1: Tensor
    top5: Tensor
    contrast: InfoNCEOutput
    conflict: GradientAlignment
    gradient_norm: Tensor  # before clipping


class TrainStep:
    """Model, objective and optimiser together; `step` scores, steps, then writes the memory."""

    def __init__(
        self,
        model: Backbone,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        preprocessing: Preprocessing,
        settings: TrainParams,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.preprocessing, self.settings = preprocessing, settings
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.ema = (
            ModelEmaV3(model, decay=settings.ema_decay, use_warmup=True)
            if settings.ema_decay
            else None
        )
        if settings.compile:
            compile_blocks(model, objective)

    def step(
        self,
        batch: ViewBatch,
        lambda_weight: float,
        step: int,
        progress: float = 0.0,
        log_diagnostics: bool = False,
    ) -> StepMetrics:
        """One step with lambda = `lambda_weight` on a batch that lies on the model's device.

        All parts of an accumulated batch are scored against the same memory, which is written once,
        after the step. `progress` in [0, 1] is of the whole training; with `log_diagnostics` the
        negatives are watched and the two losses' gradients compared.
        """
        self.optimizer.zero_grad(set_to_none=True)
        parts: list[StepMetrics] = []
        entry_parts: list[MemoryEntries] = []
        image_shares: list[float] = []
        for part in zip(
            *(column.chunk(self.settings.grad_accumulation) for column in batch), strict=True
        ):
            metrics, entries = self.forward(
                ViewBatch(*part), lambda_weight, log_diagnostics and not parts
            )
            image_shares.append(
                len(part[0]) / len(batch.labels)
            )  # a small set's batch may not divide evenly
            (metrics.loss * image_shares[-1]).backward()
            parts.append(_detach_metrics(metrics))
            entry_parts.append(entries)
        all_entries = MemoryEntries(
            *(torch.cat(column) for column in zip(*entry_parts, strict=True))
        )
        norm = self.step_optimizer(all_entries, step, progress)
        return _reduce_over_processes(_mean_over_parts(parts, image_shares))._replace(
            gradient_norm=norm
        )

    def forward(
        self, batch: ViewBatch, lambda_weight: float, log_diagnostics: bool
    ) -> tuple[StepMetrics, MemoryEntries]:
        """Both losses of a batch, with their graph."""
        with self.autocast():
            views = self.encode_views(batch)
            contrast, entries = self.objective.forward(views, diagnostics=log_diagnostics)
        view_tokens = (views.view1.tokens, views.view2.tokens)
        classification = (
            self.compute_classification_loss(view_tokens[0], batch.labels)
            + self.compute_classification_loss(view_tokens[1], batch.labels)
        ) / 2
        loss = (1 - lambda_weight) * classification + lambda_weight * contrast.loss
        alignment = not_computed(loss)
        if log_diagnostics and contrast.loss.requires_grad:
            alignment = compute_gradient_alignment(self.model, classification, contrast.loss)
        top1, top5 = (
            is_topk_correct(view_tokens[0].logits.detach(), batch.labels, k).float().mean()
            for k in (1, 5)
        )
        return StepMetrics(
            loss, classification, top1, top5, contrast, alignment, loss.detach()
        ), entries

    def autocast(self) -> torch.autocast:
        device_type = next(self.model.parameters()).device.type
        return torch.autocast(
            device_type, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16"
        )

    def encode_views(self, batch: ViewBatch) -> ViewPair:
        """Tokens of the two views from one forward pass."""
        images = normalise_images(torch.cat([batch.view1, batch.view2]), self.preprocessing)
        halves = [part.chunk(2) for part in (*forward_tokens(self.model, images), images)]
        geometries = (batch.geometry1, batch.geometry2)
        view1, view2 = (
            EncodedView(Tokens(*(h[i] for h in halves[:3])), halves[3][i], geometries[i])
            for i in (0, 1)
        )
        return ViewPair(view1, view2, batch.image_ids, batch.labels)

    def compute_classification_loss(self, view_tokens: Tokens, labels: Tensor) -> Tensor:
        """Cross-entropy of one view."""
        logits = view_tokens.logits.to(torch.promote_types(view_tokens.logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)

    def step_optimizer(self, entries: MemoryEntries, step: int, progress: float) -> Tensor:
        """Average over processes, clip, step, then remember and let averages follow; the gradient's
        norm before clipping.
        """
        distributed.average_gradients(self.parameters)
        # The model's norm apart: with lambda = 0 the objective's zeros then leave it, as in mode
        # none, the same to the bit.
        norm = _compute_gradient_norm(self.model)
        norm = torch.hypot(norm, _compute_gradient_norm(self.objective).to(norm))
        nn.utils.clip_grads_with_norm_(self.parameters, self.settings.grad_clip or torch.inf, norm)
        self.optimizer.step()
        self.objective.update_after_step(self.model, entries, step, progress)
        if self.ema:
            self.ema.update(self.model, step)
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


def _compute_gradient_norm(module: nn.Module) -> Tensor:
    """Of all its gradients; 0 without any."""
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def _detach_metrics(outcome: StepMetrics) -> StepMetrics:
    plain = {n: v.detach() for n, v in outcome._asdict().items() if isinstance(v, Tensor)}
    contrast, pull = (
        InfoNCEOutput(*(v.detach() for v in outcome.contrast)),
        GradientAlignment(*(v.detach() for v in outcome.conflict)),
    )
    return outcome._replace(**plain, contrast=contrast, conflict=pull)


def _reduce_over_processes(outcome: StepMetrics) -> StepMetrics:
    """The figures of the whole batch, the same in every process."""
    if distributed.get_world_size() == 1:
        return outcome
    columns = [v for v in outcome if isinstance(v, Tensor)]
    flat = iter(
        distributed.all_reduce_mean(
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
        contrast=InfoNCEOutput(*(next(flat) for _ in InfoNCEOutput._fields)),
        conflict=GradientAlignment(*(next(flat) for _ in GradientAlignment._fields)),
    )


def _mean_over_parts(parts: Sequence[StepMetrics], shares: Sequence[float]) -> StepMetrics:
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
        for n in StepMetrics._fields
        if n not in ("contrast", "conflict")
    }
    contrast = InfoNCEOutput(
        *(mean(column) for column in zip(*(p.contrast for p in parts), strict=True))
    )
    pull = GradientAlignment(
        *(mean(column) for column in zip(*(p.conflict for p in parts), strict=True))
    )
    return StepMetrics(**whole, contrast=contrast, conflict=pull)
