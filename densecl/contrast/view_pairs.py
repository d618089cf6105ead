"""What an objective is given, and the pairs it makes of it. Letters: B images, D projection, Q
queries, R rows remembered.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from densecl.contrast.memory import MemoryEntries
from densecl.network.vit import Tokens


class EncodedView(NamedTuple):
    """One view of a batch, as an objective sees it."""

    tokens: Tokens  # of the trained model
    images: Tensor  # [B, 3, H, W] normalised
    geometry: Tensor  # [B, 5]


class ViewPair(NamedTuple):
    """Both views of a batch."""

    view1: EncodedView
    view2: EncodedView
    image_ids: Tensor  # [B]
    class_ids: Tensor  # [B]


class PositivePairs(NamedTuple):
    """Positives: row i of queries belongs to row i of keys; and what the memory is to keep of
    them.
    """

    queries: Tensor  # [Q, D] of view 1, L2-normalised fp32
    keys: Tensor  # [Q, D] of view 2, the same, without gradient
    image_ids: Tensor  # [Q]
    class_ids: Tensor  # [Q]
    memory_entries: MemoryEntries
