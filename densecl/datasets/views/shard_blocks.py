"""The order of an epoch: of all images, or of blocks of shards that are fetched, read and removed.

It depends on seed and epoch only, not on the cache, the processes or the machines, so that a run
that resumes sees the same batches.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from densecl.datasets.storage.image_places import ArchiveImages
from densecl.datasets.storage.image_root import ImagePlace
from densecl.datasets.storage.shard_cache import fits_together, remove_shards, stage_shards
from densecl.datasets.views.batch import LoadedBatch
from densecl.errors import DataError
from densecl.seeding import derive_seed


def draw_epoch_order(length: int, epoch: int, seed: int) -> NDArray[np.int64]:
    """All rows, int64 [length], in an order drawn from (seed, epoch)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order: NDArray[np.int64] = torch.randperm(length, generator=generator).numpy()
    return order


class BlockOrder(NamedTuple):
    """Rows of an epoch, int64 [R], block after block; `ends` [K] of the blocks in it."""

    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    shards: Sequence[Sequence[Path]]  # [K]

    def find_of_batches(self, batch_size: int, start: int, steps: int) -> NDArray[np.int64]:
        """The block of the first image of each batch from `start` on, [steps - start]."""
        firsts = np.arange(start, steps) * batch_size
        return np.searchsorted(self.ends, firsts, side="right")


def draw_block_order(
    files: Sequence[ImagePlace], epoch: int, seed: int, block_shards: int
) -> BlockOrder:
    """Blocks of `block_shards` shards drawn from (seed, epoch), and the images of each block in the
    order that the epoch would have without blocks. DataError for images that are in no shards.
    """
    if not isinstance(files, ArchiveImages):
        raise DataError(
            "data.order: found shards, but the images of the train set are plain files or in a "
            "zip; set data.order: images, or pack the dataset"
        )
    shards = len(files.archives)
    generator = torch.Generator().manual_seed(derive_seed(seed, "shards", epoch))
    drawn = torch.randperm(shards, generator=generator).numpy()
    block_of_shard = np.empty(shards, np.int64)
    block_of_shard[drawn] = np.arange(shards) // block_shards
    order = draw_epoch_order(len(files), epoch, seed)
    blocks = block_of_shard[files.codes[order]]
    order = order[np.argsort(blocks, kind="stable")]
    ends = np.cumsum(np.bincount(blocks, minlength=int(block_of_shard.max()) + 1))
    members = [drawn[start : start + block_shards] for start in range(0, shards, block_shards)]
    return BlockOrder(order, ends, [[files.archives[k] for k in block] for block in members])


class FetchedBlocks:
    """Batches of a loader; of remote shards, the block that is read and the next are in the cache.

    One process per machine fetches. A block that all have read is removed, unless the cache holds
    all blocks. Whoever reads a shard that is not there fetches it, so nothing but time depends on
    when this happens.
    """

    def __init__(
        self, loader: Iterable[LoadedBatch], blocks: BlockOrder, of_batches: NDArray[np.int64]
    ) -> None:
        self.loader, self.blocks, self.of_batches = loader, blocks, of_batches
        self.is_fetcher = os.environ.get("LOCAL_RANK", "0") == "0"

    def __iter__(self) -> Iterator[LoadedBatch]:
        if not self.is_fetcher or not len(self.of_batches):
            yield from self.loader
            return
        shards = self.blocks.shards
        keeps_all = fits_together([path for block in shards for path in block])
        current = int(self.of_batches[0])
        stage_shards(self._get_blocks(current, 1))
        with ThreadPoolExecutor(1) as thread:
            fetched: Future[None] = thread.submit(stage_shards, self._get_blocks(current, 2))
            for number, batch in enumerate(self.loader):
                # Of the batch before: the other processes of the machine may still read that one.
                if number and (block := int(self.of_batches[number - 1])) > current:
                    fetched.result()
                    if not keeps_all:
                        remove_shards(path for k in range(current, block) for path in shards[k])
                    current = block
                    fetched = thread.submit(stage_shards, self._get_blocks(current, 2))
                yield batch
            fetched.result()

    def _get_blocks(self, first: int, count: int) -> list[Path]:
        return [path for block in self.blocks.shards[first : first + count] for path in block]
