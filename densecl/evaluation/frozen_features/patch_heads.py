"""Classes of patches from frozen patch tokens, by a linear layer or by nearest neighbours.

R patches that are fitted on, B images of N patches, E features, C classes.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.evaluation.frozen_features.patch_classifier import fit_patch_classifier
from densecl.network.precision import use_fp32_products
from densecl.runtime.hardware import get_device

# Tokens [B, N, E] on the model's device -> scores fp32 [B, N, C]; the highest is the class.
Head = Callable[[Tensor], Tensor]

# Below every logit, and finite, so that interpolation between patches stays a number.
UNKNOWN_SCORE = -1e4
SIMILARITIES = 2**22  # computed at once, 16 MB: what fits the caches is fastest


def count_patch_labels(labels: Tensor, grid: tuple[int, int], classes: int) -> Tensor:
    """Pixels int64 [B, N, C] of each class in each patch, of labels [B, H, W] of which -1 are not
    counted. The grid begins at the top left; what is left over right and below is not covered.
    """
    rows, columns = grid
    height, width = labels.shape[1] // rows, labels.shape[2] // columns
    cells = labels[:, : rows * height, : columns * width]
    cells = cells.reshape(len(labels), rows, height, columns, width).transpose(2, 3)
    cells = cells.reshape(len(labels) * rows * columns, height * width)
    place = torch.arange(len(cells))[:, None] * (classes + 1)
    counts = torch.bincount((place + cells + 1).flatten(), minlength=len(cells) * (classes + 1))
    return counts.view(len(labels), rows * columns, classes + 1)[..., 1:]


def choose_patch_labels(counts: Tensor) -> Tensor:
    """The class [B, N] with the most pixels [B, N, C], the first of equals; -1 without a pixel."""
    most, labels = counts.max(-1)
    return labels.where(most > 0, -1)


def fit_linear_head(tokens: Tensor, labels: Tensor, classes: int, *, polish: bool = True) -> Head:
    """Logits of `fit_patch_classifier` on tokens [R, E]; a class that is no patch's label [R] is
    never predicted.
    """
    present, places = labels.unique(return_inverse=True)
    device = get_device()
    weight, bias = fit_patch_classifier(
        tokens.to(device), places.to(device), len(present), polish=polish
    )

    def score(asked: Tensor) -> Tensor:
        scores = asked.new_full((*asked.shape[:2], classes), UNKNOWN_SCORE)
        scores[..., present.to(asked.device)] = F.linear(
            asked.float(), weight.to(asked.device), bias.to(asked.device)
        )
        return scores

    return score


def build_neighbour_head(tokens: Tensor, labels: Tensor, classes: int, neighbours: int) -> Head:
    """Votes: how many of the patches [R, E] that are nearest by cosine have a class."""
    memory = F.normalize(tokens.float(), dim=-1)
    count = min(neighbours, len(memory))

    def score(asked: Tensor) -> Tensor:
        queries = F.normalize(asked.float(), dim=-1).flatten(0, 1)
        keys = memory.to(asked.device)
        votes = queries.new_zeros(len(queries), classes)
        at_once = max(1, SIMILARITIES // len(keys))
        with use_fp32_products():
            for chunk, part in zip(queries.split(at_once), votes.split(at_once), strict=True):
                nearest = (chunk @ keys.T).topk(count, sorted=False).indices
                found = labels.to(asked.device)[nearest]
                part.scatter_add_(1, found, torch.ones_like(found, dtype=part.dtype))
        return votes.view(*asked.shape[:2], classes)

    return score


def predict_pixels(scores: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Classes int64 [B, h, w] of the pixels that the grid covers, from scores [B, N, C] of patches,
    interpolated bilinearly (as `torch.nn.functional.interpolate`, align_corners False).
    """
    rows, columns = grid
    covered = (size[0] // rows * rows, size[1] // columns * columns)
    maps = scores.transpose(1, 2).unflatten(2, grid)
    at_once = max(1, 2**26 // (maps.shape[1] * covered[0] * covered[1]))
    return torch.cat(
        [
            F.interpolate(part, size=covered, mode="bilinear", align_corners=False).argmax(1)
            for part in maps.split(at_once)
        ]
    )
