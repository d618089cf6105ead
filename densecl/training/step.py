"""One training step, the same for every mode: encode, compute losses, backward, optimizer step,
write the queue.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from densecl import distributed
from densecl.artifacts import Preprocessing
from densecl.config.params import TrainParams
from densecl.contrast.memory import NewKeys
from densecl.contrast.objective import Objective
from densecl.contrast.view_pairs import EncodedView, ViewPair
from densecl.datasets.views.batch import ViewBatch
from densecl.metrics import is_topk_correct
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, Tokens, forward_tokens
from densecl.training.step_metrics import StepMetrics, average_micro_batches


class TrainStep:
    """Model, objective and optimizer; call it with a batch to take one step."""

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
        decay = settings.ema_decay
        self.ema = ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
        if settings.compile:
            compile_blocks(model, objective)

    def __call__(
        self,
        batch: ViewBatch,
        lambda_weight: float,
        step: int,
        progress: float = 0.0,
        diagnostics: bool = False,
    ) -> StepMetrics:
        """Take one step on a batch on the model's device; the metrics of the global batch.

        Args:
            lambda_weight: total loss = (1 - lambda) * classification + lambda * contrastive.
            step: number of the step in the training run, stored with the new keys.
            progress: fraction of the training run that is done, in [0, 1].
            diagnostics: also log the negatives, and the alignment of the two losses' gradients, of
                the first micro-batch.

        With `grad_accumulation`, all micro-batches see the same memory queue and are weighted by
        their images: if a filter drops pairs, the mean over queries differs from that of one batch.
        """
        with self.use_precision():
            return self._take_step(batch, lambda_weight, step, progress, diagnostics)

    def _take_step(
        self, batch: ViewBatch, lambda_weight: float, step: int, progress: float, diagnostics: bool
    ) -> StepMetrics:
        self.optimizer.zero_grad(set_to_none=True)
        outputs: list[tuple[StepMetrics, NewKeys, float]] = []
        parts = self.settings.grad_accumulation
        for columns in zip(*(column.chunk(parts) for column in batch), strict=True):
            micro_batch = ViewBatch(*columns)
            loss, micro_metrics, micro_keys = self.forward(
                micro_batch, lambda_weight, diagnostics and not outputs
            )
            # The batch of a small dataset may not divide evenly.
            share = len(micro_batch.labels) / len(batch.labels)
            (loss * share).backward()
            outputs.append((micro_metrics, micro_keys, share))
        metrics, new_keys, image_shares = zip(*outputs, strict=True)
        gradient_norm = self.step_optimizer(NewKeys.concatenate(new_keys), step, progress)
        step_metrics = _all_reduce_metrics(average_micro_batches(metrics, image_shares))
        return step_metrics | {"gradient_norm": gradient_norm}

    def forward(
        self, batch: ViewBatch, lambda_weight: float, diagnostics: bool
    ) -> tuple[Tensor, StepMetrics, NewKeys]:
        """The total loss of a batch with its graph, its metrics, and the keys to store."""
        with self.autocast():
            views = self.encode_views(batch)
            contrast, new_keys = self.objective.forward(views, diagnostics)
        tokens1, tokens2 = views.view1.tokens, views.view2.tokens
        classification_loss = (
            self.compute_classification_loss(tokens1, batch.labels)
            + self.compute_classification_loss(tokens2, batch.labels)
        ) / 2
        loss = (1 - lambda_weight) * classification_loss + lambda_weight * contrast.loss
        top1, top5 = (
            is_topk_correct(tokens1.logits.detach(), batch.labels, k).float().mean() for k in (1, 5)
        )
        metrics = {
            "loss": loss.detach(),
            "classification_loss": classification_loss.detach(),
            "train_top1": top1,
            "train_top5": top5,
            **contrast.metrics,
        }
        if diagnostics and contrast.loss.requires_grad:
            metrics |= compute_gradient_alignment(self.model, classification_loss, contrast.loss)
        return loss, metrics, new_keys

    def use_precision(self) -> AbstractContextManager[None]:
        """`train.precision` for products of fp32 tensors in a whole step, backward too."""
        return use_fp32_products(tf32=self.settings.precision == "tf32")

    def autocast(self) -> torch.autocast:
        """bf16 for backbone and heads, with `precision: bf16`."""
        device_type = next(self.model.parameters()).device.type
        return torch.autocast(
            device_type, dtype=torch.bfloat16, enabled=self.settings.precision == "bf16"
        )

    def encode_views(self, batch: ViewBatch) -> ViewPair:
        """The tokens of both views, from one forward pass of 2 B images."""
        images = normalise_images(torch.cat([batch.view1, batch.view2]), self.preprocessing)
        tokens = forward_tokens(self.model, images)
        cls, patches, logits, pixels = (part.chunk(2) for part in (*tokens, images))
        geometries = (batch.geometry1, batch.geometry2)
        view1, view2 = (
            EncodedView(Tokens(cls[i], patches[i], logits[i]), pixels[i], geometries[i])
            for i in (0, 1)
        )
        return ViewPair(view1, view2, batch.image_ids, batch.labels)

    def compute_classification_loss(self, view_tokens: Tokens, labels: Tensor) -> Tensor:
        """Mean cross-entropy of one view, in fp32 or better."""
        logits = view_tokens.logits.to(torch.promote_types(view_tokens.logits.dtype, torch.float32))
        return F.cross_entropy(logits, labels, label_smoothing=self.settings.label_smoothing)

    def step_optimizer(self, new_keys: NewKeys, step: int, progress: float) -> Tensor:
        """Average gradients over ranks, clip, step; then update the objective and the EMA.

        Returns the norm of the gradient before clipping.
        """
        distributed.average_gradients(self.parameters)
        # Two norms: with lambda = 0 the zero gradients of the objective then leave the model's norm
        # equal to that of mode none, to the bit.
        norm = _compute_gradient_norm(self.model)
        norm = torch.hypot(norm, _compute_gradient_norm(self.objective).to(norm))
        nn.utils.clip_grads_with_norm_(self.parameters, self.settings.grad_clip or torch.inf, norm)
        self.optimizer.step()
        self.objective.update_after_step(self.model, new_keys, step, progress)
        if self.ema:
            self.ema.update(self.model, step)
        return norm.detach()


def compile_blocks(model: Backbone, objective: Objective) -> None:
    """Compile the blocks of the model, and those of a momentum encoder; the rest stays eager."""
    import torch._functorch.config as functorch

    # The gradient alignment walks the graph a second time.
    functorch.donated_buffer = False
    for part in (model, *(m for m in objective.modules() if isinstance(m, Backbone))):
        for block in part.blocks:
            block.compile()


def _compute_gradient_norm(module: Backbone | Objective) -> Tensor:
    """Of all gradients of a module; 0 without any."""
    return nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])


def _all_reduce_metrics(metrics: StepMetrics) -> StepMetrics:
    """Means over the ranks, the same on every rank."""
    if distributed.get_world_size() == 1:
        return metrics
    values = torch.stack([value.to(metrics["loss"]) for value in metrics.values()])
    return dict(zip(metrics, distributed.all_reduce_mean(values).unbind(), strict=True))


def compute_gradient_alignment(
    model: Backbone, classification_loss: Tensor, contrastive_loss: Tensor
) -> dict[str, Tensor]:
    """Norms and cosine of both losses' unweighted gradients, averaged over ranks.

    A negative cosine means that the losses conflict (Yu et al. 2020); it is NaN where a gradient is
    0, as without negatives. Costs one more backward pass through the heads and the last block.
    """
    shared = list(model.blocks[-1].parameters())
    gradients = [
        distributed.all_reduce_mean(
            torch.cat(
                [g.flatten() for g in torch.autograd.grad(loss, shared, retain_graph=True)]
            ).float()
        )
        for loss in (classification_loss, contrastive_loss)
    ]
    classification, contrast = (gradient.norm() for gradient in gradients)
    return {
        "gradient_classification": classification,
        "gradient_contrast": contrast,
        "gradient_cosine": gradients[0] @ gradients[1] / (classification * contrast),
    }
