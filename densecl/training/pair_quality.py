"""How many of the pairs that the dense loss counts are true, by where the crops were cut.

The pairs are those of the loss itself: matched by the features it matches by, with keys of its key
encoder, filtered and sampled. Each has one outcome: its match is `true` (the patch of view 2 that
contains the centre of the query's patch), `near` (a neighbour of it), `invisible` (view 2 does not
show that centre) or, if none of these, wrong.
"""

import torch
from torch import Tensor

from densecl.contrast.dense import DenseObjective, PatchFeatures, PatchSelection
from densecl.contrast.matching import build_neighbour_mask, find_true_matches
from densecl.contrast.view_pairs import ViewPair

OUTCOMES = ("true", "near", "invisible", "identity")  # the columns of `judge_pairs`


def judge_loss_pairs(
    objective: DenseObjective,
    views: ViewPair,
    features: PatchFeatures,
    generator: torch.Generator,
) -> Tensor:
    """`judge_pairs` of the pairs of one direction; leaves the objective as it is."""
    selection = objective.select_patches(features, views, generator)
    return judge_pairs(selection, views.view1.geometry, views.view2.geometry, objective.grid)


def judge_pairs(
    selection: PatchSelection, geometry1: Tensor, geometry2: Tensor, grid: tuple[int, int]
) -> Tensor:
    """Bool [Q, 4]: the outcomes of the pairs that enter the loss, by column of OUTCOMES.

    `identity` is True where the patch of the same index would be the true match. geometry1,
    geometry2: [B, 5] of the views of the queries and of the keys; grid: (rows, columns).
    """
    picks, matches, valid = selection
    truth, visible = (
        part.gather(1, picks) for part in find_true_matches(geometry1, geometry2, grid)
    )
    is_true = visible & (matches == truth)
    is_near = visible & ~is_true & build_neighbour_mask(grid).to(truth.device)[truth, matches]
    outcomes = torch.stack([is_true, is_near, ~visible, visible & (picks == truth)], dim=-1)
    return outcomes.flatten(0, 1) if valid is None else outcomes[valid]


def summarise_pairs(outcomes: Tensor, images: int, patches: int) -> dict[str, float]:
    """Shares of the pairs by column of history.csv, NaN without pairs; outcomes: bool [Q, 4].

    `match/pairs/chance` is the share that a uniform guess among the N `patches` of view 2 would
    match truly, `match/pairs/per_image` the mean number of pairs per image.
    """
    shares = dict(zip(OUTCOMES, outcomes.double().mean(0).tolist(), strict=True))
    shares |= {
        "chance": (1 - shares["invisible"]) / patches,
        "per_image": len(outcomes) / images,
    }
    return {f"match/pairs/{name}": value for name, value in shares.items()}
