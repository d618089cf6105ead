"""What an objective receives, two encoded views, and the positive pairs that it forms of them."""

from collections.abc import Iterable
from typing import NamedTuple, Self

import torch
from torch import Tensor

from densecl.network.vit import Tokens


class EncodedView(NamedTuple):
    """One view of a batch."""

    tokens: Tokens  # of the trained model
    images: Tensor  # [B, 3, H, W], normalised
    geometry: Tensor  # [B, 5], see `datasets.views.batch.ViewGeometry`


class ViewPair(NamedTuple):
    """Both views of a batch."""

    view1: EncodedView
    view2: EncodedView
    image_ids: Tensor  # [B]
    class_ids: Tensor  # [B]

    def swap(self) -> Self:
        """The same batch with the two views exchanged."""
        return self._replace(view1=self.view2, view2=self.view1)


class PositivePairs(NamedTuple):
    """Queries of view 1 with their positive keys of view 2, row by row."""

    queries: Tensor  # [Q, D], L2-normalised fp32
    keys: Tensor  # [Q, D], L2-normalised fp32, without gradient
    image_ids: Tensor  # [Q]
    class_ids: Tensor  # [Q]

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """The rows of all parts in order."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))
