"""From a batch to its losses: one module with all that is trained, as torch's engines need it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densecl.artifacts import Preprocessing
from densecl.config.params import TrainParams
from densecl.contrast.memory import NewKeys
from densecl.contrast.objective import Objective
from densecl.contrast.view_pairs import EncodedView, ViewPair
from densecl.datasets.views.batch import ViewBatch
from densecl.metrics import is_topk_correct
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, Tokens, forward_tokens
from densecl.training.step_metrics import StepMetrics


class ScoredBatch(NamedTuple):
    """What a step needs of a scored batch or micro-batch; all of this rank."""

    classification_loss: Tensor  # scalar, like the next with its graph
    contrastive_loss: Tensor
    metrics: StepMetrics
    new_keys: list[NewKeys]  # of each direction


class BatchScorer(nn.Module):
    """Backbone, projection head and temperature; `forward` computes the losses of a batch.

    The memory queue and the momentum encoder are read but are no part of this module: no engine
    averages, broadcasts or shards them with it.
    """

    def __init__(
        self,
        model: Backbone,
        objective: Objective,
        preprocessing: Preprocessing,
        settings: TrainParams,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective_parts = nn.ModuleList(objective.list_trained_modules())
        self.compare_views = objective.forward  # a method, so the objective is no submodule
        self.preprocessing, self.settings = preprocessing, settings

    def forward(self, batch: ViewBatch, diagnostics: bool = False) -> ScoredBatch:
        """The losses of both views against the memory queue as it is.

        `diagnostics` adds the metrics of the negatives, which are NaN otherwise.
        """
        with self.autocast():
            views = self.encode_views(batch)
            contrast, new_keys = self.compare_views(views, diagnostics)
        tokens1, tokens2 = views.view1.tokens, views.view2.tokens
        classification_loss = (
            self.compute_classification_loss(tokens1, batch.labels)
            + self.compute_classification_loss(tokens2, batch.labels)
        ) / 2
        top1, top5 = (
            is_topk_correct(tokens1.logits.detach(), batch.labels, k).float().mean() for k in (1, 5)
        )
        metrics = {
            "classification_loss": classification_loss.detach(),
            "train_top1": top1,
            "train_top5": top5,
            **contrast.metrics,
        }
        return ScoredBatch(classification_loss, contrast.loss, metrics, new_keys)

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
