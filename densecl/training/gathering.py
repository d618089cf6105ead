"""What ranks tell each other in each step beside gradients: new keys and metrics, in one call."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from densecl import distributed
from densecl.contrast.memory import NewKeys
from densecl.training.step_metrics import StepMetrics


class KeyPart(NamedTuple):
    """New keys of one micro-batch and direction; every rank has as many parts."""

    keys: NewKeys  # of this rank
    limit: int  # rows that no rank exceeds


def gather_ranks(
    parts: Sequence[KeyPart], keys_vary: bool, metrics: StepMetrics
) -> tuple[NewKeys, StepMetrics]:
    """The keys of all ranks in the order in which one process would write them, and mean metrics.

    keys_vary: whether parts may have fewer rows than their limits. Then all are padded, so that one
    call does where the ranks do not know each other's numbers of rows.
    """
    if distributed.get_world_size() == 1:
        return NewKeys.concatenate(part.keys for part in parts), metrics
    own_keys = NewKeys.concatenate(part.keys.pad(part.limit) for part in parts)
    own_metrics = torch.stack([value.to(metrics["loss"]) for value in metrics.values()])
    gathered, *columns = distributed.all_gather(own_metrics, *own_keys)  # [ranks, ...] each
    by_part = zip(*(c.split([part.limit for part in parts], dim=1) for c in columns), strict=True)
    new_keys = NewKeys.concatenate(
        NewKeys(*(column.flatten(0, 1) for column in part)) for part in by_part
    )
    means = dict(zip(metrics, gathered.mean(0).unbind(), strict=True))
    return new_keys.drop_padding() if keys_vary else new_keys, means
