"""Accuracy of patch matches, against the true correspondence given by the crops.

A match is correct within 0 patches if it is the patch that contains the true position, within 1 if
it is that patch or a neighbour. Only patches whose centre view 2 shows are counted. Two baselines:
a uniform guess (chance), and the same index in view 2 (identity), which features score that encode
position instead of content.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from densecl.contrast.matching import (
    compute_crop_overlap,
    compute_true_positions,
    find_true_matches,
    match_patches,
)

OVERLAP_BINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the overlap of the two crops
MOVED_THRESHOLD = 1.0  # patches; a pair has moved if the mean displacement is larger


def measure_match_accuracy(
    features: dict[str, tuple[Tensor, Tensor]],
    geometry1: Tensor,
    geometry2: Tensor,
    grid: tuple[int, int],
) -> dict[str, float]:
    """Accuracies by column of history.csv, NaN where no patch counts.

    features: name -> [B, N, E] of both views; geometry1, geometry2: [B, 5]; grid: (rows, columns).
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


def build_neighbour_mask(grid: tuple[int, int]) -> Tensor:
    """Bool [N, N]: True for patches that are the same or neighbours, corners included."""
    rows, columns = grid
    position = torch.stack(
        torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1
    ).view(-1, 2)
    return (position[:, None] - position[None]).abs().amax(-1) <= 1


def _mean_where(hits: Tensor, mask: Tensor) -> float:
    return float(hits[mask].mean()) if mask.any() else float("nan")
