"""What is looked at after each epoch, on the same views of the same training images for every
mode.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.contrast.dense import Dense
from densecl.contrast.matching import match_patches, true_matches
from densecl.contrast.objective import Objective
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.two_views import TwoViews
from densecl.metrics import effective_rank, mean_cosine
from densecl.network.preprocessing import normalise
from densecl.network.vit import Backbone, grid, tokens_of_two_blocks
from densecl.seeding import derive
from densecl.training.diagnostics.match_accuracy import match_quality

IMAGES = 256  # at most; as many CLS features give the rank
DRAWN = 6  # pairs kept for the picture
EPOCH = -1  # of the views: none that is trained on


class Watch:
    """Two views of up to IMAGES training images, drawn once."""

    def __init__(self, views: TwoViews, seed: int, where: torch.device) -> None:
        rng = np.random.default_rng(derive(seed, "watch"))
        rows = rng.permutation(len(views))[:IMAGES]
        self.batch = ViewBatch(
            *(torch.stack(c) for c in zip(*(views[EPOCH, int(r)] for r in rows), strict=True))
        )
        self.where = where

    @torch.no_grad()
    def look(
        self, model: Backbone, objective: Objective, values: Preprocessing, batch_size: int
    ) -> dict[str, float]:
        """Effective ranks and match quality, by the names of history.csv."""
        cls, features = self._features(self.batch, model, objective, values, batch_size)
        first = features["last"][0]
        middle = np.arange(len(first)) % first.shape[1]
        figures = {
            "rank_cls": float(effective_rank(cls)),
            "similarity_cls": float(mean_cosine(cls)),
            "rank_patches_within": float(
                np.mean([float(effective_rank(patches)) for patches in first])
            ),
            "rank_patches_across": float(
                effective_rank(first[np.arange(len(first)), middle])
            ),  # one patch an image
        }
        return figures | match_quality(
            features, self.batch.first_geometry, self.batch.second_geometry, grid(model)
        )

    @torch.no_grad()
    def picture(
        self, model: Backbone, objective: Objective, values: Preprocessing, path: Path
    ) -> None:
        """Write what a drawing of matches needs: views uint8 [P, 3, H, W], match, truth and visible
        [P, N].
        """
        part = ViewBatch(*(column[:DRAWN] for column in self.batch))
        _, features = self._features(part, model, objective, values, DRAWN)
        truth, visible = true_matches(part.first_geometry, part.second_geometry, grid(model))
        index = match_patches(*features["dense" if "dense" in features else "last"])
        drawn = {
            "first": part.first.contiguous(),
            "second": part.second.contiguous(),
            "match": index,
        }
        save_file(drawn | {"truth": truth, "visible": visible.to(torch.uint8)}, path)

    def _features(
        self,
        batch: ViewBatch,
        model: Backbone,
        objective: Objective,
        values: Preprocessing,
        batch_size: int,
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """CLS [B, E] of view 1, and named patch features [B, N, .] of both views: two blocks, and
        the head's if there is one.
        """
        was, sides = model.training, []
        model.eval()
        for images in (batch.first, batch.second):
            parts: dict[str, list[Tensor]] = {}
            for some in images.split(batch_size):
                seen, before = tokens_of_two_blocks(model, normalise(some.to(self.where), values))
                kinds = {"cls": seen.cls, "last": seen.patches, "before_last": before}
                if isinstance(objective, Dense):
                    kinds["dense"] = objective.head(seen.patches)
                for name, value in kinds.items():
                    parts.setdefault(name, []).append(value.float().cpu())
            sides.append({name: torch.cat(value) for name, value in parts.items()})
        model.train(was)
        named = {name: (sides[0][name], sides[1][name]) for name in sides[0] if name != "cls"}
        return sides[0]["cls"], named
