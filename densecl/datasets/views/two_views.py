"""Two augmented views per image; randomness depends on (seed, epoch, image), not on the number of
workers.

Letters: B images, H and W pixels of a view.
"""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from densecl import distributed
from densecl.config.params import DataParams, ViewParams
from densecl.datasets.storage.image_names import FolderedNames, ImageFiles, ImageIds
from densecl.datasets.storage.image_places import locate_images
from densecl.datasets.views.batch import ImageViews, LoadedBatch, ViewGeometry, collate_images
from densecl.datasets.views.color_change import ColorChange, draw_color_change
from densecl.datasets.views.crops import Crop, draw_crops, reduce_crops
from densecl.datasets.views.read_pixels import ImageFile, Pixels, read_pixels
from densecl.datasets.views.shard_blocks import (
    FetchedBlocks,
    draw_block_order,
    draw_epoch_order,
)
from densecl.datasets.views.transforms import apply_color_change, resize_crop, to_planes
from densecl.seeding import derive_seed

Extent = tuple[float, float]  # height and width in px


class View(NamedTuple):
    pixels: Tensor  # uint8 [3, H, W]
    geometry: ViewGeometry
    color_change: ColorChange  # already applied unless `data.augment_on` is `device`


class TwoViewDataset(Dataset[ImageViews]):
    """Dataset indexed by (epoch, row); `image_id` of a batch is the row."""

    def __init__(
        self, frame: pd.DataFrame, root: Path, data: DataParams, size: tuple[int, int], seed: int
    ) -> None:
        self.files = locate_images(root, frame["path"])
        self.image_ids: ImageIds | FolderedNames = (
            ImageIds(frame["image_id"], self.files.paths)
            if isinstance(self.files, ImageFiles)
            else FolderedNames(frame["image_id"])
        )
        labels = frame["label"].to_numpy(np.int64)
        self.labels = labels.astype(np.min_scalar_type(labels.max(initial=0)))
        self.data, self.size, self.seed = data, size, seed
        self.cached_pixels: list[Pixels] | None = None
        if data.cache == "ram":
            with ThreadPoolExecutor() as threads:  # decoding runs outside the interpreter's lock
                self.cached_pixels = list(
                    threads.map(partial(read_pixels, exif=data.exif), self.files)
                )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, item: tuple[int, int]) -> ImageViews:
        epoch, row = item
        rng = np.random.default_rng(derive_seed(self.seed, "views", epoch, self.image_ids[row]))
        pixels, crops, extent = self.decode_crops(row, rng)
        data = self.data
        view1 = augment_view(pixels, data.view1, crops[0], data, self.size, rng, extent)
        view2 = augment_view(pixels, data.view2, crops[1], data, self.size, rng, extent)
        return ImageViews(
            view1=view1.pixels,
            view2=view2.pixels,
            label=int(self.labels[row]),
            image_id=row,
            geometry1=view1.geometry,
            geometry2=view2.geometry,
            changes=(view1.color_change, view2.color_change)
            if data.augment_on == "device"
            else None,
        )

    def decode_crops(
        self, row: int, rng: np.random.Generator
    ) -> tuple[Pixels, tuple[Crop, Crop], Extent]:
        """Pixels of an image, both crops in these pixels, and the extent of the whole image."""
        if self.cached_pixels:
            pixels = self.cached_pixels[row]
        else:
            file = ImageFile(self.files[row], self.data.exif)
            if self.data.reduced_decoding and file.jpeg_size:
                width, height = file.jpeg_size
                crops = draw_crops(width, height, self.data, rng)
                reduction, crops = reduce_crops(crops, self.size, (height, width))
                return file.decode(reduction), crops, (height / reduction, width / reduction)
            pixels = file.decode()
        height, width = pixels.shape[:2]
        return pixels, draw_crops(width, height, self.data, rng), (height, width)


class EpochRows(Sampler[tuple[int, int]]):
    """(epoch, row) of each of the rows, int64 [R], in their order."""

    def __init__(self, epoch: int, rows: NDArray[np.int64]) -> None:
        self.epoch, self.rows = epoch, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, int(row)) for row in self.rows)


def create_epoch_loader(
    views: TwoViewDataset,
    epoch: int,
    batch_size: int,
    steps: int,
    workers: int,
    start: int = 0,
    parts: int = 1,
) -> Iterable[LoadedBatch]:
    """A loader of `steps` full batches of one epoch from batch `start` on. An incomplete last batch
    is dropped; the order differs per epoch. With several processes, each loads its share of the
    `parts` of every batch.
    """
    blocks = None
    if views.data.order == "shards":
        blocks = draw_block_order(views.files, epoch, views.seed, views.data.block_shards)
    order = blocks.order if blocks else draw_epoch_order(len(views), epoch, views.seed)
    order = order[start * batch_size : steps * batch_size]
    loader: DataLoader[ImageViews] = DataLoader(
        views,
        batch_size=batch_size // distributed.get_world_size(),
        sampler=EpochRows(epoch, distributed.shard_epoch(order, batch_size, parts)),
        num_workers=workers,
        drop_last=True,
        collate_fn=collate_images,
        pin_memory=torch.cuda.is_available(),
        # Workers draw nothing, but without it the global generator would advance.
        generator=torch.Generator().manual_seed(0),
    )
    if blocks is None:
        return loader
    return FetchedBlocks(loader, blocks, blocks.find_of_batches(batch_size, start, steps))


def augment_view(
    pixels: Pixels,
    view: ViewParams,
    crop: Crop,
    data: DataParams,
    size: tuple[int, int],
    rng: np.random.Generator,
    extent: Extent | None = None,
) -> View:
    """Augment uint8 [H, W, 3] to uint8 [3, *size]: crop, then flip, colour jitter, blur.

    extent: height and width of the whole image in these pixels, if it is not their shape.
    """
    flipped = bool(rng.random() < data.flip)
    change = draw_color_change(view, data, size, rng)
    augmented = resize_crop(pixels, crop, size)
    if flipped:
        augmented = np.asarray(cv2.flip(augmented, 1), np.uint8)
    if data.augment_on == "cpu":
        augmented = apply_color_change(augmented, change)
    h, w = extent or pixels.shape[:2]
    top, left, height, width = crop
    geometry = ViewGeometry(top / h, left / w, height / h, width / w, flipped)
    return View(torch.from_numpy(to_planes(augmented)), geometry, change)
