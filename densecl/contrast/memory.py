"""First-in, first-out memory of negatives (MoCo's queue). Letters: K entries, D dimension, R rows
written.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class MemoryEntries(NamedTuple):
    """Keys to remember, and where they came from."""

    features: Tensor  # [R, D]
    image_ids: Tensor  # [R]
    class_ids: Tensor  # [R]


class Memory(nn.Module):
    """A ring buffer of `size` features with the image, class and step they came from; all of it
    travels with checkpoints.
    """

    buffer: Tensor  # [K, D]
    buffer_image_ids: Tensor  # [K], -1 where nothing was written
    buffer_class_ids: Tensor  # [K]
    buffer_steps: Tensor  # [K]

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.written = (
            0  # rows ever written; known on the host, so that no step waits for the device
        )
        self.register_buffer("buffer", torch.zeros(size, dim))
        self.register_buffer("buffer_image_ids", torch.full((size,), -1))
        self.register_buffer("buffer_class_ids", torch.full((size,), -1))
        self.register_buffer("buffer_steps", torch.full((size,), -1))

    @property
    def filled(self) -> int:
        """How many entries hold a feature."""
        return min(self.written, self.size)

    @property
    def features(self) -> Tensor:
        """[filled, D], oldest first."""
        return self.buffer[self._index_oldest_first()]

    @property
    def image_ids(self) -> Tensor:
        """[filled], oldest first."""
        return self.buffer_image_ids[self._index_oldest_first()]

    @property
    def class_ids(self) -> Tensor:
        """[filled], oldest first."""
        return self.buffer_class_ids[self._index_oldest_first()]

    @property
    def steps(self) -> Tensor:
        """[filled] step of writing, oldest first."""
        return self.buffer_steps[self._index_oldest_first()]

    @torch.no_grad()
    def write(self, features: Tensor, image_ids: Tensor, class_ids: Tensor, step: int) -> None:
        """Append rows [R, D] with ids [R] in order, over the oldest ones; of more than `size` rows
        the last stay.
        """
        rows = len(features)
        newest = slice(max(0, rows - self.size), None)
        slots = (self.written + torch.arange(rows, device=self.buffer.device)[newest]) % self.size
        self.buffer[slots] = features[newest].detach().to(self.buffer)
        self.buffer_image_ids[slots] = image_ids[newest]
        self.buffer_class_ids[slots] = class_ids[newest]
        self.buffer_steps[slots] = step
        self.written += rows

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.written)

    def set_extra_state(self, state: Tensor) -> None:
        self.written = int(state)

    def measure_diversity(self) -> dict[str, float]:
        """How varied the negatives are, by the names of history.csv; the same-class share is of
        pairs of entries.
        """
        filled = self.filled
        images, classes = self.buffer_image_ids[:filled], self.buffer_class_ids[:filled]
        shares = classes.unique(return_counts=True)[1].double() / max(1, filled)
        ages = (
            (self.buffer_steps[:filled].max() - self.buffer_steps[:filled]).double()
            if filled
            else torch.zeros(1)
        )
        return {
            "queue_unique_images": len(images.unique()),
            "queue_unique_classes": len(shares),
            "queue_same_class": float((shares**2).sum()),
            "queue_age": float(ages.mean()),  # steps before the newest entry
            "queue_filled": filled / self.size,
        }

    def _index_oldest_first(self) -> Tensor:
        start = self.written if self.filled == self.size else 0
        return (start + torch.arange(self.filled, device=self.buffer.device)) % self.size
