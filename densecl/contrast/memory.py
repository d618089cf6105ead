"""The first-in, first-out memory queue of negatives (He et al. 2020)."""

import math
from collections.abc import Iterable
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn


class NewKeys(NamedTuple):
    """Keys of one step, to be written to the memory queue after the optimizer's step."""

    features: Tensor  # [R, D], L2-normalised
    image_ids: Tensor  # [R]
    class_ids: Tensor  # [R]

    @classmethod
    def concatenate(cls, parts: Iterable[Self]) -> Self:
        """The rows of all parts in order."""
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def pad(self, rows: int) -> Self:
        """`rows` rows: the rest are zeros of image -1, which `drop_padding` takes out again."""
        missing = rows - len(self.image_ids)
        padding = (
            self.features.new_zeros(missing, *self.features.shape[1:]),
            self.image_ids.new_full((missing,), -1),
            self.class_ids.new_full((missing,), -1),
        )
        return self.concatenate([self, type(self)(*padding)])

    def drop_padding(self) -> Self:
        """The rows of images; waits for the device."""
        is_image = self.image_ids >= 0
        return type(self)(*(column[is_image] for column in self))


class MemoryQueue(nn.Module):
    """The last `size` keys with their image, class and step, in a ring buffer.

    All of it is part of the state dict, so that a resumed run has the same negatives.
    """

    buffer: Tensor  # [K, D]
    buffer_image_ids: Tensor  # [K], -1 where nothing was written
    buffer_class_ids: Tensor  # [K]
    buffer_steps: Tensor  # [K]

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        # Rows ever written, or since entries were last discarded; a Python number, so that no step
        # synchronises with the GPU.
        self.written = 0
        self.register_buffer("buffer", torch.zeros(size, dim))
        self.register_buffer("buffer_image_ids", torch.full((size,), -1))
        self.register_buffer("buffer_class_ids", torch.full((size,), -1))
        self.register_buffer("buffer_steps", torch.full((size,), -1))

    @property
    def filled(self) -> int:
        """Number of entries that hold a key."""
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
        """[filled] step at which each entry was written, oldest first."""
        return self.buffer_steps[self._index_oldest_first()]

    @torch.no_grad()
    def write(self, features: Tensor, image_ids: Tensor, class_ids: Tensor, step: int) -> None:
        """Append rows [R, D] with ids [R] in order, over the oldest entries.

        Of more than `size` rows the last `size` are retained.
        """
        rows = len(features)
        newest = slice(max(0, rows - self.size), None)
        slots = (self.written + torch.arange(rows, device=self.buffer.device)[newest]) % self.size
        self.buffer[slots] = features[newest].detach().to(self.buffer)
        self.buffer_image_ids[slots] = image_ids[newest]
        self.buffer_class_ids[slots] = class_ids[newest]
        self.buffer_steps.index_fill_(0, slots, step)  # assigned, a number waits for the GPU
        self.written += rows

    @torch.no_grad()
    def discard_before(self, step: int) -> None:
        """Discard the entries written before `step`; waits for the device."""
        is_recent = self.steps >= step  # [filled], oldest first
        if is_recent.all():
            return
        slots = self._index_oldest_first()[is_recent]
        for buffer in self.buffers():
            buffer[: len(slots)] = buffer[slots]
        self.written = len(slots)

    def get_extra_state(self) -> Tensor:
        """The write position, for the state dict."""
        return torch.tensor(self.written)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the write position."""
        self.written = int(state)

    def measure_diversity(self) -> dict[str, float]:
        """How varied the entries are, by column of history.csv.

        `queue_same_class` is the share of pairs of entries that have the same class; `queue_age`
        the mean age in steps, relative to the newest entry. Both are NaN without entries.
        """
        filled = self.filled
        images, classes = self.buffer_image_ids[:filled], self.buffer_class_ids[:filled]
        shares = classes.unique(return_counts=True)[1].double() / max(1, filled)
        steps = self.buffer_steps[:filled]
        ages = (steps.max() - steps).double() if filled else steps.double()
        return {
            "queue_unique_images": len(images.unique()),
            "queue_unique_classes": len(shares),
            "queue_same_class": float((shares**2).sum()) if filled else math.nan,
            "queue_age": float(ages.mean()),
            "queue_filled": filled / self.size,
        }

    def _index_oldest_first(self) -> Tensor:
        start = self.written if self.filled == self.size else 0
        return (start + torch.arange(self.filled, device=self.buffer.device)) % self.size
