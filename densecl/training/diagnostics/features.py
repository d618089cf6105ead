"""Ranks of features and accuracy of matches, after each epoch, on fixed views of training images.

The images and views are the same for every mode of a seed, and none is trained on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.contrast.dense import DenseObjective
from densecl.contrast.matching import find_true_matches, match_patches
from densecl.contrast.objective import Objective
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.two_views import TwoViewDataset
from densecl.metrics import compute_effective_rank, compute_mean_cosine
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, forward_last_two_blocks, get_patch_grid
from densecl.seeding import derive_seed
from densecl.training.diagnostics.match_accuracy import measure_match_accuracy

MAX_IMAGES = 256
PICTURE_PAIRS = 6  # view pairs of the picture of matches
VIEW_EPOCH = -1  # draws views that no training epoch draws


class FeatureDiagnostics:
    """Two views of up to MAX_IMAGES training images, drawn once."""

    def __init__(self, views: TwoViewDataset, seed: int, device: torch.device) -> None:
        rng = np.random.default_rng(derive_seed(seed, "watch"))
        rows = rng.permutation(len(views))[:MAX_IMAGES]
        self.batch = ViewBatch(
            *(torch.stack(c) for c in zip(*(views[VIEW_EPOCH, int(r)] for r in rows), strict=True))
        )
        self.device = device

    @torch.no_grad()
    def compute_diagnostics(
        self, model: Backbone, objective: Objective, preprocessing: Preprocessing, batch_size: int
    ) -> dict[str, float]:
        """Effective ranks and accuracy of matches, by column of history.csv."""
        cls, features = self._extract_features(
            self.batch, model, objective, preprocessing, batch_size
        )
        patches1 = features["last"][0]
        rows = np.arange(len(patches1))
        metrics = {
            "rank_cls": float(compute_effective_rank(cls)),
            "similarity_cls": float(compute_mean_cosine(cls)),
            "rank_patches_within": float(
                np.mean([float(compute_effective_rank(patches)) for patches in patches1])
            ),
            "rank_patches_across": float(
                compute_effective_rank(patches1[rows, rows % patches1.shape[1]])
            ),  # one patch per image
        }
        return metrics | measure_match_accuracy(
            features, self.batch.geometry1, self.batch.geometry2, get_patch_grid(model)
        )

    @torch.no_grad()
    def save_match_picture(
        self, model: Backbone, objective: Objective, preprocessing: Preprocessing, path: Path
    ) -> None:
        """Write views, uint8 [P, 3, H, W], and match, truth and visible, [P, N], as safetensors."""
        batch = ViewBatch(*(column[:PICTURE_PAIRS] for column in self.batch))
        _, features = self._extract_features(batch, model, objective, preprocessing, PICTURE_PAIRS)
        truth, visible = find_true_matches(batch.geometry1, batch.geometry2, get_patch_grid(model))
        index = match_patches(*features["dense" if "dense" in features else "last"])
        tensors = {
            "first": batch.view1.contiguous(),
            "second": batch.view2.contiguous(),
            "match": index,
        }
        save_file(tensors | {"truth": truth, "visible": visible.to(torch.uint8)}, path)

    def _extract_features(
        self,
        batch: ViewBatch,
        model: Backbone,
        objective: Objective,
        preprocessing: Preprocessing,
        batch_size: int,
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """CLS [B, E] of view 1, and patch features [B, N, E or D] of both views by name.

        The names: `last` and `before_last` block, and `dense` for the head of the dense objective.
        """
        was_training, views = model.training, []
        model.eval()
        for images in (batch.view1, batch.view2):
            parts: list[dict[str, Tensor]] = []
            for chunk in images.split(batch_size):
                view_tokens, previous_patches = forward_last_two_blocks(
                    model, normalise_images(chunk.to(self.device), preprocessing)
                )
                features = {
                    "cls": view_tokens.cls,
                    "last": view_tokens.patches,
                    "before_last": previous_patches,
                }
                if isinstance(objective, DenseObjective):
                    features["dense"] = objective.head(view_tokens.patches)
                parts.append({name: value.float().cpu() for name, value in features.items()})
            views.append({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
        model.train(was_training)
        feature_pairs = {
            name: (views[0][name], views[1][name]) for name in views[0] if name != "cls"
        }
        return views[0]["cls"], feature_pairs
