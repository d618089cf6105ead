"""Effective rank of features and accuracy of matches, after each epoch, on fixed training images.

Images and views are the same for every mode of a seed; training never draws these views.

A match is correct within 0 patches if it is the patch that contains the true position, within 1 if
it is that patch or a neighbour. Only patches whose centre view 2 shows are counted. Two baselines:
a uniform guess (chance), and the same index in view 2 (identity), which features score that encode
position instead of content. `pair_quality` judges the pairs that the dense loss counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.contrast.dense import DenseObjective
from densecl.contrast.matching import (
    build_neighbour_mask,
    compute_crop_overlap,
    compute_true_positions,
    find_true_matches,
    match_patches,
)
from densecl.contrast.objective import Objective
from densecl.contrast.view_pairs import EncodedView, ViewPair
from densecl.datasets.views.batch import ViewBatch, stack_images
from densecl.datasets.views.device_transforms import finish_batch
from densecl.datasets.views.two_views import TwoViewDataset
from densecl.metrics import compute_effective_rank, compute_mean_cosine
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, forward_last_two_blocks, get_patch_grid
from densecl.seeding import derive_seed
from densecl.training.pair_quality import judge_loss_pairs, summarise_pairs

MAX_IMAGES = 256
PICTURE_PAIRS = 6  # view pairs of the picture of matches
VIEW_EPOCH = -1  # draws views that no training epoch draws
OVERLAP_BINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the overlap of the two crops
MOVED_THRESHOLD = 1.0  # patches; a pair has moved if the mean displacement is larger


class EncodedBatch(NamedTuple):
    """What diagnostics read of two views of B images; all on the CPU."""

    cls: Tensor  # [B, E], of view 1
    patches: dict[str, Tensor]  # [2, B, N, E or D], of both views, by features
    outcomes: Tensor | None  # bool [Q, 4], of the pairs of the dense loss; None in other modes

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """The images of all parts in order."""
        outcomes = [part.outcomes for part in parts if part.outcomes is not None]
        return cls(
            torch.cat([part.cls for part in parts]),
            {
                name: torch.cat([part.patches[name] for part in parts], 1)
                for name in parts[0].patches
            },
            torch.cat(outcomes) if outcomes else None,
        )


class FeatureDiagnostics:
    """Two views of up to MAX_IMAGES training images, drawn once."""

    def __init__(self, views: TwoViewDataset, seed: int, device: torch.device) -> None:
        rng = np.random.default_rng(derive_seed(seed, "watch"))
        rows = rng.permutation(len(views))[:MAX_IMAGES]
        loaded = stack_images(views[VIEW_EPOCH, int(row)] for row in rows)
        self.batch = ViewBatch(*(column.cpu() for column in finish_batch(loaded, device)))
        self.seed, self.device = seed, device

    @torch.no_grad()
    @use_fp32_products()
    def compute_diagnostics(
        self, model: Backbone, objective: Objective, preprocessing: Preprocessing, batch_size: int
    ) -> dict[str, float]:
        """Effective ranks and accuracy of matches, by column of history.csv."""
        encoded = self._encode_batch(self.batch, model, objective, preprocessing, batch_size)
        cls, patches1 = encoded.cls, encoded.patches["last"][0]
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
            **measure_match_accuracy(
                encoded.patches, self.batch.geometry1, self.batch.geometry2, get_patch_grid(model)
            ),
        }
        if encoded.outcomes is not None:
            metrics |= summarise_pairs(encoded.outcomes, *patches1.shape[:2])
        return metrics

    @torch.no_grad()
    @use_fp32_products()
    def save_match_picture(
        self, model: Backbone, objective: Objective, preprocessing: Preprocessing, path: Path
    ) -> None:
        """Write P pairs of views as safetensors: first and second, uint8 [P, 3, H, W]; match, truth
        and visible, [P, N].
        """
        batch = ViewBatch(*(column[:PICTURE_PAIRS] for column in self.batch))
        patches = self._encode_batch(batch, model, objective, preprocessing, PICTURE_PAIRS).patches
        truth, visible = find_true_matches(batch.geometry1, batch.geometry2, get_patch_grid(model))
        tensors = {
            "first": batch.view1.contiguous(),
            "second": batch.view2.contiguous(),
            "match": match_patches(*patches["dense" if "dense" in patches else "last"]),
            "truth": truth,
            "visible": visible.to(torch.uint8),
        }
        save_file(tensors, path)

    def _encode_batch(
        self,
        batch: ViewBatch,
        model: Backbone,
        objective: Objective,
        preprocessing: Preprocessing,
        batch_size: int,
    ) -> EncodedBatch:
        """All of a batch on the CPU, computed `batch_size` images at a time."""
        was_training = model.training
        model.eval()
        # A generator of its own: what training samples must not depend on diagnostics.
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "watch-pairs"))
        parts = []
        for columns in zip(*(column.split(batch_size) for column in batch), strict=True):
            chunk = ViewBatch(*(column.to(self.device) for column in columns))
            parts.append(encode_chunk(chunk, model, objective, preprocessing, generator))
        model.train(was_training)
        return EncodedBatch.concatenate(parts)


def encode_chunk(
    batch: ViewBatch,
    model: Backbone,
    objective: Objective,
    preprocessing: Preprocessing,
    generator: torch.Generator,
) -> EncodedBatch:
    """The features by name: `last` and `before_last` block of the trained model, and `dense`.

    `dense` is what the dense objective compares: view 1 projected by the head, view 2 by its key
    encoder.
    """
    encoded, previous = [], []
    for images, geometry in ((batch.view1, batch.geometry1), (batch.view2, batch.geometry2)):
        normalised = normalise_images(images, preprocessing)
        tokens, previous_patches = forward_last_two_blocks(model, normalised)
        encoded.append(EncodedView(tokens, normalised, geometry))
        previous.append(previous_patches)
    views = ViewPair(encoded[0], encoded[1], batch.image_ids, batch.labels)
    patches = {
        "last": torch.stack([view.tokens.patches for view in encoded]),
        "before_last": torch.stack(previous),
    }
    outcomes = []
    if isinstance(objective, DenseObjective):
        for direction in objective.list_directions(views):
            features = objective.encode_patches(direction)
            patches.setdefault("dense", torch.stack([features.queries, features.projected2]))
            outcomes.append(judge_loss_pairs(objective, direction, features, generator))
    return EncodedBatch(
        views.view1.tokens.cls.float().cpu(),
        {name: value.float().cpu() for name, value in patches.items()},
        torch.cat(outcomes).cpu() if outcomes else None,
    )


def measure_match_accuracy(
    features: Mapping[str, Iterable[Tensor]],
    geometry1: Tensor,
    geometry2: Tensor,
    grid: tuple[int, int],
) -> dict[str, float]:
    """Accuracies by column of history.csv, NaN where no patch counts.

    features: name -> [B, N, E] of each of the two views; geometry1, geometry2: [B, 5]; grid:
    (rows, columns).
    `match/<name>/within0` and `within1` over all pairs; `moved0`: within 0, over pairs flipped
    differently or shifted by more than a patch; `overlap-<low>`: within 1, by overlap of the crops.
    """
    truth, visible = find_true_matches(geometry1, geometry2, grid)
    identity = torch.arange(truth.shape[1], device=truth.device).expand_as(truth)
    offset = (
        compute_true_positions(geometry1, geometry2, grid)
        - compute_true_positions(geometry1, geometry1, grid)
    ).norm(dim=-1)  # [B, N]
    moved = (geometry1[:, 4] != geometry2[:, 4]) | (offset.mean(1) > MOVED_THRESHOLD)
    crop_overlap = compute_crop_overlap(geometry1, geometry2)
    is_near = build_neighbour_mask(grid).to(truth.device)
    metrics = {
        "match/visible": float(visible.double().mean()),
        "match/chance/within0": 1 / truth.shape[1],
        "match/chance/within1": _mean_where(is_near[truth].double().mean(-1), visible),
    }
    matches = {name: match_patches(*pair) for name, pair in features.items()} | {
        "identity": identity
    }
    for name, index in matches.items():
        within0, within1 = (index == truth).double(), is_near[truth, index].double()
        metrics[f"match/{name}/within0"] = _mean_where(within0, visible)
        metrics[f"match/{name}/within1"] = _mean_where(within1, visible)
        metrics[f"match/{name}/moved0"] = _mean_where(within0, visible & moved[:, None])
        for low, high in pairwise(OVERLAP_BINS):
            inside = (crop_overlap > low) & (crop_overlap <= high)
            metrics[f"match/{name}/overlap-{low:g}"] = _mean_where(
                within1, visible & inside[:, None]
            )
    return metrics


def _mean_where(hits: Tensor, mask: Tensor) -> float:
    return float(hits[mask].mean()) if mask.any() else float("nan")
