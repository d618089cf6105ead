"""First-in, first-out memory of negatives (MoCo's queue). Letters: K entries, D dimension."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """A ring of `size` features with the image, class and step they came from; its buffers travel with checkpoints."""

    ring: Tensor  # [K, D]
    ring_image_ids: Tensor  # [K], -1 where nothing was written
    ring_class_ids: Tensor  # [K]
    ring_steps: Tensor  # [K]
    written: Tensor  # rows ever written

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("ring", torch.zeros(size, dim))
        self.register_buffer("ring_image_ids", torch.full((size,), -1))
        self.register_buffer("ring_class_ids", torch.full((size,), -1))
        self.register_buffer("ring_steps", torch.full((size,), -1))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))

    @property
    def filled(self) -> int:
        """How many entries hold a feature."""
        return min(int(self.written), self.size)

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
        """Append rows [R, D] with ids [R] in order, over the oldest ones; of more than `size` rows the last stay."""
        rows = len(features)
        keep = slice(max(0, rows - self.size), None)
        places = (self.written + torch.arange(rows, device=self.ring.device)[keep]) % self.size
        self.ring[places] = features[keep].detach().to(self.ring)
        self.ring_image_ids[places] = image_ids[keep]
        self.ring_class_ids[places] = class_ids[keep]
        self.ring_steps[places] = step
        self.written += rows

    def _order(self) -> Tensor:
        start = int(self.written) if self.filled == self.size else 0
        return (start + torch.arange(self.filled, device=self.ring.device)) % self.size
