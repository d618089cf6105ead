"""Top-1 of a model while it trains; logged only, so no training stage depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from densecl import distributed
from densecl.datasets.storage.usable_images import ImageSet
from densecl.evaluation.predict import predict, scoring
from densecl.network.vit import Backbone


def build_validator(
    datasets: Mapping[str, ImageSet], classes: Sequence[str], batch_size: int
) -> Callable[[Backbone], dict[str, float]]:
    """A function that gives top-1 of a model on each dataset; several processes share the
    images.
    """
    return lambda model: {
        name: _top1(model, images, classes, batch_size) for name, images in datasets.items()
    }


def _top1(model: Backbone, images: ImageSet, classes: Sequence[str], batch_size: int) -> float:
    frame, values, scored = scoring(
        model,
        images.frame,
        classes,
        protocol=images.protocol,
        preprocess=images.preprocess,
        given=images.classes,
    )
    mine = frame.iloc[
        distributed.rank() :: distributed.size()
    ]  # each image in one process: none is counted twice
    right = (
        predict(model, mine, images.root, values, scored, batch_size)["correct"].sum()
        if len(mine)
        else 0
    )
    correct, seen = distributed.total((float(right), float(len(mine))))
    return correct / seen
