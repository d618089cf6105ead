"""First-in, first-out memory of negatives (MoCo's queue). Letters: K entries, D dimension, R rows
written.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Rows(NamedTuple):
    """Keys to remember, and where they came from."""

    features: Tensor  # [R, D]
    image_ids: Tensor  # [R]
    class_ids: Tensor  # [R]


class Memory(nn.Module):
    """A ring of `size` features with the image, class and step they came from; all of it travels
    with checkpoints.
    """

    ring: Tensor  # [K, D]
    ring_image_ids: Tensor  # [K], -1 where nothing was written
    ring_class_ids: Tensor  # [K]
    ring_steps: Tensor  # [K]

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.written = (
            0  # rows ever written; known on the host, so that no step waits for the device
        )
        self.register_buffer("ring", torch.zeros(size, dim))
        self.register_buffer("ring_image_ids", torch.full((size,), -1))
        self.register_buffer("ring_class_ids", torch.full((size,), -1))
        self.register_buffer("ring_steps", torch.full((size,), -1))

    @property
    def filled(self) -> int:
        """How many entries hold a feature."""
        return min(self.written, self.size)

    @property
    def features(self) -> Tensor:
        """[filled, D], oldest first."""
        return self.ring[self._order()]

    @property
    def image_ids(self) -> Tensor:
        """[filled], oldest first."""
        return self.ring_image_ids[self._order()]

    @property
    def class_ids(self) -> Tensor:
        """[filled], oldest first."""
        return self.ring_class_ids[self._order()]

    @property
    def steps(self) -> Tensor:
        """[filled] step of writing, oldest first."""
        return self.ring_steps[self._order()]

    @torch.no_grad()
    def write(self, features: Tensor, image_ids: Tensor, class_ids: Tensor, step: int) -> None:
        """Append rows [R, D] with ids [R] in order, over the oldest ones; of more than `size` rows
        the last stay.
        """
        rows = len(features)
        keep = slice(max(0, rows - self.size), None)
        places = (self.written + torch.arange(rows, device=self.ring.device)[keep]) % self.size
        self.ring[places] = features[keep].detach().to(self.ring)
        self.ring_image_ids[places] = image_ids[keep]
        self.ring_class_ids[places] = class_ids[keep]
        self.ring_steps[places] = step
        self.written += rows

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.written)

    def set_extra_state(self, state: Tensor) -> None:
        self.written = int(state)

    def diversity(self) -> dict[str, float]:
        """How varied the negatives are, by the names of history.csv; the same-class share is of
        pairs of entries.
        """
        filled = self.filled
        images, classes = self.ring_image_ids[:filled], self.ring_class_ids[:filled]
        shares = classes.unique(return_counts=True)[1].double() / max(1, filled)
        ages = (
            (self.ring_steps[:filled].max() - self.ring_steps[:filled]).double()
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

    def _order(self) -> Tensor:
        start = self.written if self.filled == self.size else 0
        return (start + torch.arange(self.filled, device=self.ring.device)) % self.size
