"""Which M of an image's N patches become queries. Letters: B images, N patches, M sampled, D
dimension.

All samplers take (features [B, N, D], count, generator, scores=None, allowed=None) and give
distinct patches [B, M], M = count or N where that is less. `allowed` [B, N] bool puts the other
patches last: they are picked only where an image has fewer than M allowed ones.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl import distributed

Sampler = Callable[..., Tensor]

MAX_COSINE_GAP = 4.0  # beyond any difference of two cosines


def sample_random(
    features: Tensor,
    count: int,
    generator: torch.Generator,
    scores: Tensor | None = None,  # noqa: ARG001
    allowed: Tensor | None = None,
) -> Tensor:
    """[B, M] distinct patches of each image, every subset equally likely."""
    return (
        _draw_noise(features, generator, allowed).topk(min(count, features.shape[1]), dim=1).indices
    )


@torch.no_grad()
def sample_diverse(
    features: Tensor,
    count: int,
    generator: torch.Generator,
    scores: Tensor | None = None,  # noqa: ARG001
    allowed: Tensor | None = None,
) -> Tensor:
    """[B, M] by farthest-point sampling on cosine distance (Gonzalez 1985), from a random first
    patch.

    Each next patch is the one whose nearest chosen patch is farthest away.
    """
    features = F.normalize(features.float(), dim=-1)  # [B, N, D]
    chosen = _draw_noise(features, generator, allowed).argmax(dim=1, keepdim=True)  # [B, 1]
    nearest = features.new_full(
        features.shape[:2], -torch.inf
    )  # cosine to the nearest chosen patch
    penalty = features.new_zeros(features.shape[:2])
    if allowed is not None:
        penalty = penalty.masked_fill(~allowed, MAX_COSINE_GAP)
    picks = [chosen]
    for _ in range(min(count, features.shape[1]) - 1):
        newest = torch.take_along_dim(features, chosen[..., None], dim=1)  # [B, 1, D]
        nearest = torch.maximum(nearest, (features * newest).sum(-1)).scatter(1, chosen, torch.inf)
        chosen = (nearest + penalty).argmin(dim=1, keepdim=True)
        picks.append(chosen)
    return torch.cat(picks, dim=1)


def sample_hardest(
    features: Tensor,
    count: int,
    generator: torch.Generator,
    scores: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """[B, M] patches of the highest `scores` [B, N]: cosine of the hardest negative less the
    positive's, hardest first.

    Equal scores are drawn among at random; so are all without scores, when there are no negatives
    yet.
    """
    if scores is None:
        return sample_random(features, count, generator, allowed=allowed)
    order = _draw_noise(features, generator, None).argsort(
        dim=1
    )  # of equal scores the first in it is taken
    # A patch without negatives has -inf: the least hard, but still ahead of those that are not
    # allowed.
    scores = (
        scores.clamp_min(-MAX_COSINE_GAP)
        if allowed is None
        else scores.clamp_min(-MAX_COSINE_GAP).masked_fill(~allowed, -torch.inf)
    )
    ranked = scores.gather(1, order).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, ranked[:, :count])


def _draw_noise(features: Tensor, generator: torch.Generator, allowed: Tensor | None) -> Tensor:
    # Drawn for the images of all processes: an image's patches are the same however many processes
    # share a batch.
    device, shape = (
        features.device,
        (len(features) * distributed.get_world_size(), features.shape[1]),
    )
    # From pinned memory a copy does not wait for the device.
    pinned = device.type == "cuda" and generator.device.type == "cpu"
    global_noise = torch.rand(
        shape, generator=generator, device=generator.device, pin_memory=pinned
    )
    noise = distributed.shard_rows(global_noise).to(device, non_blocking=True)
    return noise if allowed is None else noise.masked_fill(~allowed, -1)


SAMPLERS: dict[str, Sampler] = {
    "random": sample_random,
    "diverse": sample_diverse,
    "hardest": sample_hardest,
}
