"""Which memory entries are negatives of a query, stated by ids instead of a [Q, K] mask."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Self

import torch
from torch import Tensor


class NegativeMask(NamedTuple):
    """A memory entry with the image (or class) id of the query is masked: it is not a negative.

    A pair of ids is compared only if both are given; without any, every entry is a negative.
    """

    query_ids: Tensor | None = None  # [Q]
    memory_ids: Tensor | None = None  # [K]
    query_classes: Tensor | None = None  # [Q]
    memory_classes: Tensor | None = None  # [K]

    @property
    def id_pairs(self) -> list[tuple[Tensor, Tensor]]:
        """The ids to compare, as pairs of ([Q], [K])."""
        both = ((self.query_ids, self.memory_ids), (self.query_classes, self.memory_classes))
        return [(q, m) for q, m in both if q is not None and m is not None]

    def build_masks(
        self, query_slice: slice, memory_slices: Iterable[slice]
    ) -> Iterator[tuple[slice, Tensor | None]]:
        """Each slice of the memory with bool [queries, entries], True where masked, or None if
        nothing is masked there.
        """
        pairs = [(q[query_slice], m) for q, m in self.id_pairs]
        # The test saves time on a CPU; on a GPU it would synchronise host and device.
        has_masked = [torch.isin(m, q) if m.is_cpu else None for q, m in pairs]  # [K] each
        for rows in memory_slices:
            mask = None
            for (q, m), entries in zip(pairs, has_masked, strict=True):
                if entries is None or entries[rows].any():
                    is_same = q[:, None] == m[None, rows]
                    mask = is_same if mask is None else mask | is_same
            yield rows, mask

    def has_masked(self, queries: Tensor) -> Tensor:
        """Bool [Q]: True for queries [Q, D] with at least one masked entry."""
        has_masked = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
        for q, m in self.id_pairs:
            has_masked |= torch.isin(q, m)
        return has_masked

    def select_queries(self, selected: Tensor) -> Self:
        """The mask of the queries where `selected`, bool [Q], is True."""
        return self._replace(
            query_ids=None if self.query_ids is None else self.query_ids[selected],
            query_classes=None if self.query_classes is None else self.query_classes[selected],
        )
