"""How well patches are matched, judged by where the crops lie. Letters: B images, N patches, E
embedding.

A match counts within 0 patches if it is the patch that holds the true position, within 1 if it is
that one or a neighbour. Only patches whose centre view 2 shows are counted. Beside it stand what
guessing gives (chance) and what the same index in view 2 gives (identity): features that have
learned position instead of content score like the latter.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from densecl.contrast.matching import match_patches, overlap, true_matches, true_positions

BINS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the crops' overlap
MOVED = 1.0  # patches: a mean displacement above it makes a pair shifted


def match_quality(
    features: dict[str, tuple[Tensor, Tensor]], first: Tensor, second: Tensor, grid: tuple[int, int]
) -> dict[str, float]:
    """Shares by the names of history.csv, for named features [B, N, E] of both views; geometry [B,
    5].

    `match/<name>/within0` and `within1` over all pairs; `moved0` over pairs flipped differently or
    shifted by more than a patch; `overlap-<low>` within 1 by bins of overlap. NaN where nothing can
    be counted.
    """
    truth, visible = true_matches(first, second, grid)
    identity = torch.arange(truth.shape[1], device=truth.device).expand_as(truth)
    offset = (true_positions(first, second, grid) - true_positions(first, first, grid)).norm(
        dim=-1
    )  # [B, N]
    moved = (first[:, 4] != second[:, 4]) | (offset.mean(1) > MOVED)
    shared = overlap(first, second)
    near = neighbours(grid).to(truth.device)
    figures = {
        "match/visible": float(visible.double().mean()),
        "match/chance/within0": 1 / truth.shape[1],
        "match/chance/within1": _share(near[truth].double().mean(-1), visible),
    }
    found = {name: match_patches(*pair) for name, pair in features.items()} | {"identity": identity}
    for name, index in found.items():
        within0, within1 = (index == truth).double(), near[truth, index].double()
        figures[f"match/{name}/within0"] = _share(within0, visible)
        figures[f"match/{name}/within1"] = _share(within1, visible)
        figures[f"match/{name}/moved0"] = _share(within0, visible & moved[:, None])
        for low, high in pairwise(BINS):
            inside = (shared > low) & (shared <= high)
            figures[f"match/{name}/overlap-{low:g}"] = _share(within1, visible & inside[:, None])
    return figures


def neighbours(grid: tuple[int, int]) -> Tensor:
    """[N, N] bool: are two patches the same or neighbours, corners included?"""
    rows, columns = grid
    place = torch.stack(
        torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1
    ).view(-1, 2)
    return (place[:, None] - place[None]).abs().amax(-1) <= 1


def _share(values: Tensor, counted: Tensor) -> float:
    return float(values[counted].mean()) if counted.any() else float("nan")
