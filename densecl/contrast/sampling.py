"""Samplers: which M of the N patches of an image become queries.

All samplers take (features [B, N, D], count, generator, scores=None, valid=None) and return the
indices [B, M] of distinct patches, M = min(count, N). Patches that are not `valid`, bool [B, N],
are taken only when an image has fewer than M valid ones.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl import distributed

Sampler = Callable[..., Tensor]

MAX_COSINE_GAP = 4.0  # larger than any difference of two cosines


def sample_random(
    features: Tensor,
    count: int,
    generator: torch.Generator,
    scores: Tensor | None = None,  # noqa: ARG001
    valid: Tensor | None = None,
) -> Tensor:
    """[B, M] patches without replacement, every subset equally likely."""
    noise = _draw_noise(features, generator, valid)
    return noise.topk(min(count, features.shape[1]), dim=1).indices


@torch.no_grad()
def sample_diverse(
    features: Tensor,
    count: int,
    generator: torch.Generator,
    scores: Tensor | None = None,  # noqa: ARG001
    valid: Tensor | None = None,
) -> Tensor:
    """[B, M] patches by farthest-point sampling on cosine distance (Gonzalez 1985).

    The first patch is random; each next one is that whose nearest chosen patch is farthest away.
    """
    features = F.normalize(features.float(), dim=-1)  # [B, N, D]
    chosen = _draw_noise(features, generator, valid).argmax(dim=1, keepdim=True)  # [B, 1]
    nearest = features.new_full(features.shape[:2], -torch.inf)  # cosine to the nearest chosen one
    penalty = features.new_zeros(features.shape[:2])  # [B, N]
    if valid is not None:
        penalty = penalty.masked_fill(~valid, MAX_COSINE_GAP)
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
    valid: Tensor | None = None,
) -> Tensor:
    """[B, M] patches with the largest `scores` [B, N], in descending order.

    A score is the cosine of the hardest negative minus that of the positive. Ties are broken at
    random; without scores (no negatives yet) the patches are random.
    """
    if scores is None:
        return sample_random(features, count, generator, valid=valid)
    order = _draw_noise(features, generator, None).argsort(dim=1)  # breaks ties: first in it wins
    # A patch without negatives scores -inf: least hard, but still ahead of invalid ones.
    scores = scores.clamp_min(-MAX_COSINE_GAP)
    if valid is not None:
        scores = scores.masked_fill(~valid, -torch.inf)
    ranked = scores.gather(1, order).argsort(dim=1, descending=True, stable=True)
    return order.gather(1, ranked[:, :count])


def _draw_noise(features: Tensor, generator: torch.Generator, valid: Tensor | None) -> Tensor:
    """[B, N] uniform in [0, 1); -1 where not valid."""
    # Drawn for the global batch on every rank: the patches of an image do not depend on the
    # world size.
    device = features.device
    shape = (len(features) * distributed.get_world_size(), features.shape[1])
    # A copy from pinned memory does not wait for the GPU.
    pinned = device.type == "cuda" and generator.device.type == "cpu"
    noise = torch.rand(
        shape,
        dtype=torch.float32,
        generator=generator,
        device=generator.device,
        pin_memory=pinned,
    )
    noise = distributed.shard_rows(noise).to(device, non_blocking=True)
    return noise if valid is None else noise.masked_fill(~valid, -1)


SAMPLERS: dict[str, Sampler] = {
    "random": sample_random,
    "diverse": sample_diverse,
    "hardest": sample_hardest,
}
