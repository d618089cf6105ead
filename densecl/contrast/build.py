"""Build the objective of a mode from its settings."""

import math
import warnings

import torch

from densecl.config.params import DenseContrastParams, GlobalContrastParams
from densecl.contrast.dense import DenseObjective
from densecl.contrast.global_ import GlobalObjective
from densecl.contrast.objective import NoObjective
from densecl.network.vit import Backbone

AnyObjective = NoObjective | GlobalObjective | DenseObjective


def build_objective(
    settings: GlobalContrastParams | None,
    model: Backbone,
    queue_size: int,
    seed: int,
    generator: torch.Generator,
    max_key_age: int | None = None,
) -> AnyObjective:
    """The objective of the mode that `settings` belong to; None is mode none."""
    if settings is None:
        return NoObjective()
    if isinstance(settings, DenseContrastParams):
        return DenseObjective(settings, model, queue_size, seed, generator, max_key_age)
    return GlobalObjective(settings, model, queue_size, seed, generator, max_key_age)


def limit_queue_size(settings: GlobalContrastParams | None, images: int, patches: int) -> int:
    """`queue_size`, at most half of the keys that one epoch of `images` writes; warns if cut.

    A larger queue would often hold older keys of an image beside its newer ones. Where pairs are
    left out, an epoch writes fewer keys than counted here: see `compute_max_key_age`.
    """
    if settings is None:
        return 0
    limit = max(1, images * _count_keys_per_image(settings, patches) // 2)
    if settings.queue_size > limit:
        mode = "dense" if isinstance(settings, DenseContrastParams) else "global"
        warnings.warn(
            f"contrast.queue_size: {settings.queue_size} is more than half of the keys that one "
            f"epoch writes; cut to {limit} for mode {mode}",
            stacklevel=2,
        )
    return min(settings.queue_size, limit)


def compute_max_key_age(
    settings: GlobalContrastParams | None, images: int, batch_size: int
) -> int | None:
    """Steps of half an epoch of `images`, where a filter decides how many keys each step writes.

    None where every image adds the same number of keys: there `limit_queue_size` bounds the age.
    """
    if not isinstance(settings, DenseContrastParams) or settings.memory_unit == "image":
        return None
    features, keeps = settings.correspondence_features, settings.correspondence_filter
    if features != "geometric" and keeps == "none":
        return None
    return math.ceil(images / (2 * batch_size))


def _count_keys_per_image(settings: GlobalContrastParams, patches: int) -> int:
    """Largest number of keys that one image of N patches adds to the memory queue in a step."""
    directions = 2 if settings.symmetric else 1
    if not isinstance(settings, DenseContrastParams) or settings.memory_unit == "image":
        return directions
    sampled = min(settings.patches_per_image, patches)
    return directions * min(sampled, settings.memory_per_image or sampled)
