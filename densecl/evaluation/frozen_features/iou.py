"""Intersections and unions of pixels, and their mean over classes (mIoU). n images, C classes."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densecl.evaluation.probing.result import linearise_ratio


class PixelCounts(NamedTuple):
    """Pixels of each image."""

    true: Tensor  # int64 [n, C], labelled with a class
    predicted: Tensor  # int64 [n, C], of the labelled pixels
    both: Tensor  # int64 [n, C]


def count_pixels(predicted: Tensor, labels: Tensor, classes: int) -> PixelCounts:
    """Of predictions and labels [n, H, W]; pixels of label -1 are not counted."""
    parts = []
    for values, chosen in (
        (labels, labels >= 0),
        (predicted, labels >= 0),
        (labels, labels == predicted),
    ):
        place = torch.arange(len(labels))[:, None, None] * classes
        counts = torch.bincount((place + values)[chosen], minlength=len(labels) * classes)
        parts.append(counts.view(len(labels), classes))
    return PixelCounts(*parts)


def join_counts(parts: list[PixelCounts]) -> PixelCounts:
    """Of several batches, in their order."""
    return PixelCounts(*(torch.cat(values) for values in zip(*parts, strict=True)))


def linearise_miou(counts: PixelCounts) -> NDArray[np.float64]:
    """Values [n] whose mean is the mean IoU, and whose variance is that of it by the delta method.

    IoU of a class: sum over images of the intersections by that of the unions, as of one large
    image (Everingham et al. 2015). Mean over the classes that any pixel is labelled
    with: which classes count does not depend on the model.
    """
    true, predicted, both = (part.double().numpy() for part in counts)
    columns = [
        linearise_ratio(both[:, index], true[:, index] + predicted[:, index] - both[:, index])
        for index in np.flatnonzero(true.sum(0))
    ]
    return np.asarray(np.mean(columns, axis=0))


def linearise_accuracy(counts: PixelCounts) -> NDArray[np.float64]:
    """As `linearise_miou`, of the share of the labelled pixels that are predicted."""
    return linearise_ratio(counts.both.sum(1).double().numpy(), counts.true.sum(1).double().numpy())


def count_constant(counts: PixelCounts, index: int) -> PixelCounts:
    """The counts of a prediction of one class everywhere."""
    predicted, both = torch.zeros_like(counts.true), torch.zeros_like(counts.true)
    predicted[:, index] = counts.true.sum(1)
    both[:, index] = counts.true[:, index]
    return PixelCounts(counts.true, predicted, both)
