"""One training step, the same for every mode and engine: encode, compute losses, backward, step the
optimizer, write the queue.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from densecl import distributed
from densecl.artifacts import Preprocessing
from densecl.config.params import TrainParams
from densecl.contrast.build import AnyObjective
from densecl.contrast.memory import NewKeys
from densecl.datasets.views.batch import ViewBatch
from densecl.network.precision import use_fp32_products
from densecl.network.vit import Backbone
from densecl.training.batch_scorer import BatchScorer, ScoredBatch
from densecl.training.engine import OFFLOADED_STATE, WHOLE_STATE, Engine
from densecl.training.gathering import KeyPart, gather_ranks
from densecl.training.optim import build_optimizer
from densecl.training.step_metrics import StepMetrics, average_micro_batches


class TrainStep:
    """Model, objective and optimizer; call it with a batch to take one step."""

    def __init__(
        self,
        model: Backbone,
        objective: AnyObjective,
        preprocessing: Preprocessing,
        settings: TrainParams,
    ) -> None:
        self.model, self.objective = model, objective
        self.preprocessing, self.settings = preprocessing, settings
        decay = settings.ema_decay
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
        if settings.compile:
            compile_blocks(model, objective)
        if settings.checkpoint_activations:
            model.set_grad_checkpointing()
        self.scorer = BatchScorer(model, objective, preprocessing, settings)
        ema_model = self.ema.module if self.ema else None
        self.engine = Engine(self.scorer, objective, ema_model, settings.parallel)
        # After the engine, which may replace parameters.
        self.optimizer = build_optimizer(model, objective, settings)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]

    def __call__(
        self,
        batch: ViewBatch,
        lambda_weight: float,
        step: int,
        progress: float = 0.0,
        diagnostics: bool = False,
        votes: Mapping[str, Tensor] = {},
    ) -> StepMetrics:
        """Take one step on a batch on the model's device; the metrics of the global batch.

        Args:
            lambda_weight: total loss = (1 - lambda) * classification + lambda * contrastive.
            step: number of the step in the training run, stored with the new keys.
            progress: fraction of the training run that is done, in [0, 1].
            diagnostics: also log the negatives, and the alignment of the two losses' gradients, of
                the first micro-batch.
            votes: scalars of this rank, returned among the metrics as means over ranks.

        With `grad_accumulation`, all micro-batches see the same memory queue and are weighted by
        their images: if a filter drops pairs, the mean over queries differs from that of one batch.
        """
        with self.use_precision():
            self.optimizer.zero_grad(set_to_none=True)
            new_keys, metrics = self.score_batch(batch, lambda_weight, diagnostics, votes)
            gradient_norm = self.step_optimizer(new_keys, step, progress)
            return metrics | {"gradient_norm": gradient_norm}

    def score_batch(
        self,
        batch: ViewBatch,
        lambda_weight: float,
        diagnostics: bool = False,
        votes: Mapping[str, Tensor] = {},
    ) -> tuple[NewKeys, StepMetrics]:
        """Add the gradients of a batch; the keys to store and the metrics, of all ranks."""
        parts = self.settings.grad_accumulation
        micro_batches = [
            ViewBatch(*columns)
            for columns in zip(*(column.chunk(parts) for column in batch), strict=True)
        ]
        # The batch of a small dataset may not divide evenly.
        shares = [len(micro_batch.labels) / len(batch.labels) for micro_batch in micro_batches]
        metrics: list[StepMetrics] = []
        new_keys: list[KeyPart] = []
        for micro_batch, share in zip(micro_batches, shares, strict=True):
            is_first, is_last = micro_batch is micro_batches[0], micro_batch is micro_batches[-1]
            with nullcontext() if is_last else self.engine.accumulate_locally():
                loss, scored = self.score(micro_batch, lambda_weight, diagnostics and is_first)
                (loss * share).backward()
            metrics.append(scored.metrics)
            limit = len(micro_batch.labels) * self.objective.keys_per_image
            new_keys += [KeyPart(keys, limit) for keys in scored.new_keys]
        batch_metrics = {**average_micro_batches(metrics, shares), **votes}
        return gather_ranks(new_keys, self.objective.keys_vary, batch_metrics)

    def score(
        self, batch: ViewBatch, lambda_weight: float, diagnostics: bool = False
    ) -> tuple[Tensor, ScoredBatch]:
        """The total loss of a micro-batch, and all that was computed on the way."""
        scored: ScoredBatch = self.engine.score(batch, diagnostics)
        classification, contrast = scored.classification_loss, scored.contrastive_loss
        loss = (1 - lambda_weight) * classification + lambda_weight * contrast
        metrics = {"loss": loss.detach(), **scored.metrics}
        if diagnostics and contrast.requires_grad:
            metrics |= compute_gradient_alignment(self.model, classification, contrast)
        return loss, scored._replace(metrics=metrics)

    def step_optimizer(self, new_keys: NewKeys, step: int, progress: float) -> Tensor:
        """Clip the averaged gradients, step; then update the objective and the EMA.

        Returns the norm of the gradient before clipping.
        """
        # Two norms: with lambda = 0 the zero gradients of the objective then leave the model's norm
        # equal to that of mode none, to the bit.
        norm = _compute_gradient_norm(self.model)
        if any(p.grad is not None for p in self.objective.parameters()):
            norm = torch.hypot(norm, _compute_gradient_norm(self.objective).to(norm))
        nn.utils.clip_grads_with_norm_(self.parameters, self.settings.grad_clip or torch.inf, norm)
        self.optimizer.step()
        self.objective.update_after_step(self.model, new_keys, step, progress)
        if self.ema:
            self.ema.update(self.model, step)
        return norm.detach()

    def rehearse(self, images: int) -> None:
        """Score a batch of black images, and drop its gradients: nothing is changed by it.

        DDP arranges its buckets by the first backward pass of each process, and more than two ranks
        add the entries of a bucket in an order that depends on their place in it. Without a
        rehearsal, the first step of a resumed run would add them in another order than the same
        step of an uninterrupted one. `images`: of a micro-batch, for which `compile` specialises.
        """
        height, width = self.preprocessing.input_size[1:]
        device = next(self.model.parameters()).device
        view = torch.zeros(images, 3, height, width, dtype=torch.uint8, device=device)
        rows = torch.zeros(images, dtype=torch.long, device=device)
        whole = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]], device=device).expand(images, 5)
        self.model.train()
        with self.use_precision():
            batch = ViewBatch(view, view, rows, rows, whole, whole)
            self.score(batch, 0.5)[0].backward()
        self.optimizer.zero_grad(set_to_none=True)

    def collect_state(self) -> dict[str, Any]:
        """All that steps change, on the CPU of rank 0; every rank must call it."""
        optimizer = None
        if self.optimizer.state:  # else torch would take a step to have one
            optimizer = get_optimizer_state_dict(
                self.engine.parts, self.optimizer, options=OFFLOADED_STATE
            )
        return {"weights": self.engine.collect_weights(), "optimizer": optimizer}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from a state that `collect_state` returned with any engine."""
        self.engine.load_weights(state["weights"])
        if state["optimizer"]:
            set_optimizer_state_dict(
                self.engine.parts, self.optimizer, state["optimizer"], options=WHOLE_STATE
            )

    def use_precision(self) -> AbstractContextManager[None]:
        """`train.precision` for products of fp32 tensors in a whole step, backward too."""
        return use_fp32_products(tf32=self.settings.precision == "tf32")


def compile_blocks(model: Backbone, objective: AnyObjective) -> None:
    """Compile the blocks of the model, and those of a momentum encoder; the rest stays eager."""
    import torch._functorch.config as functorch

    # The gradient alignment walks the graph a second time.
    functorch.donated_buffer = False
    for part in (model, *(m for m in objective.modules() if isinstance(m, Backbone))):
        for block in part.blocks:
            block.compile()


def compute_gradient_alignment(
    model: Backbone, classification_loss: Tensor, contrastive_loss: Tensor
) -> dict[str, Tensor]:
    """Norms and cosine of both losses' unweighted gradients, averaged over ranks.

    A negative cosine means that the losses conflict (Yu et al. 2020); it is NaN where a gradient is
    0, as without negatives. Costs one more backward pass through the heads and the last block;
    it asks for these gradients only, so no engine averages them.
    """
    shared = list(model.blocks[-1].parameters())
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)])
        for loss in (classification_loss, contrastive_loss)
    ]
    classification, contrast = distributed.all_reduce_mean(torch.stack(gradients).float())
    norms = classification.norm(), contrast.norm()
    return {
        "gradient_classification": norms[0],
        "gradient_contrast": norms[1],
        "gradient_cosine": classification @ contrast / (norms[0] * norms[1]),
    }


def _compute_gradient_norm(module: nn.Module) -> Tensor:
    """Of all gradients of a module, whole or sharded."""
    norm = nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
