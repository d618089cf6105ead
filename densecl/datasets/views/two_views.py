"""Two augmented views of every image, drawn from (seed, epoch, image) whatever the number of
workers.

Letters: B images, H and W pixels of a view.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from densecl import distributed
from densecl.config.params import Data, View
from densecl.datasets.views.batch import Geometry, ViewBatch
from densecl.datasets.views.read_pixels import Pixels, read_pixels
from densecl.datasets.views.transforms import blurred, jittered, mirrored, resized
from densecl.seeding import derive

TRIES = 10  # crops tried before the whole image is taken, as in torchvision's RandomResizedCrop
BLUR_KERNEL, BLUR_SIZE = 23, 224  # px, at px: SimCLR's tenth of the image


Crop = tuple[int, int, int, int]  # top, left, height, width in px


class TwoViews(Dataset[ViewBatch]):
    """Items are asked for as (epoch, row); each is a ViewBatch without its B."""

    def __init__(
        self, frame: pd.DataFrame, root: Path, data: Data, size: tuple[int, int], seed: int
    ) -> None:
        self.paths, self.labels = frame["path"].tolist(), frame["label"].tolist()
        self.names, self.rows = frame["image_id"].tolist(), frame.index.tolist()
        self.root, self.data, self.size, self.seed = root, data, size, seed
        self.held: list[Pixels] | None = None
        if data.cache == "ram":
            with ThreadPoolExecutor() as threads:  # decoding runs outside the interpreter's lock
                self.held = list(threads.map(self._decoded, range(len(self))))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> ViewBatch:
        epoch, row = item
        pixels = self.held[row] if self.held else self._decoded(row)
        down, across = pixels.shape[:2]
        rng = np.random.default_rng(derive(self.seed, "views", epoch, self.names[row]))
        (first, where1), (second, where2) = (
            augment(pixels, view, crop, self.data, self.size, rng)
            for view, crop in zip(
                (self.data.view1, self.data.view2),
                draw_crops(across, down, self.data, rng),
                strict=True,
            )
        )
        return ViewBatch(
            first,
            second,
            torch.tensor(self.labels[row]),
            torch.tensor(self.rows[row]),
            torch.tensor(where1),
            torch.tensor(where2),
        )

    def _decoded(self, row: int) -> Pixels:
        return read_pixels(self.root / self.paths[row])


class EpochOrder(Sampler[tuple[int, int]]):
    """Rows `start` to `limit` of one epoch, in an order drawn from (seed, epoch)."""

    def __init__(self, length: int, epoch: int, seed: int, limit: int, start: int = 0) -> None:
        generator = torch.Generator().manual_seed(derive(seed, "order", epoch))
        self.items = [
            (epoch, int(row)) for row in torch.randperm(length, generator=generator)[start:limit]
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self.items)


def epoch_loader(
    views: TwoViews,
    epoch: int,
    batch_size: int,
    steps: int,
    workers: int,
    start: int = 0,
    parts: int = 1,
) -> DataLoader[ViewBatch]:
    """`steps` full batches of one epoch from batch `start` on; the tail that fills no batch has its
    turn in another epoch's order. Of several processes each loads its share of the `parts` of every
    batch.
    """
    order = EpochOrder(len(views), epoch, views.seed, steps * batch_size, start * batch_size)
    order.items = distributed.share(order.items, batch_size, parts)
    return DataLoader(
        views,
        batch_size=batch_size // distributed.size(),
        sampler=order,
        num_workers=workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(
            0
        ),  # workers draw nothing; without it the global generator would move
    )


def augment(
    pixels: Pixels,
    view: View,
    where: Crop,
    data: Data,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Tensor, Geometry]:
    """One view of uint8 [H, W, 3] as uint8 [3, *size] with its geometry: the crop, then flip,
    colour jitter, blur.
    """
    down, across = pixels.shape[:2]
    flipped = bool(rng.random() < data.flip)
    seen = resized(pixels, where, size)
    if flipped:
        seen = mirrored(seen)
    seen = jittered(seen, data.color_jitter, rng)
    if rng.random() < view.blur:
        scale = size[0] / BLUR_SIZE
        kernel = max(3, 2 * round((BLUR_KERNEL * scale - 1) / 2) + 1)
        seen = blurred(seen, kernel, float(rng.uniform(*data.blur_sigma)) * scale)
    top, left, height, width = where
    geometry = Geometry(top / down, left / across, height / down, width / across, flipped)
    return torch.from_numpy(seen).permute(
        2, 0, 1
    ), geometry  # channels last in memory: nothing is moved


def draw_crops(width: int, height: int, data: Data, rng: np.random.Generator) -> tuple[Crop, Crop]:
    """Crops of both views; view 2's is drawn anew until `min_overlap` holds, and else is the best
    of the tries.
    """
    first = draw_crop(width, height, data.view1, rng)
    second = draw_crop(width, height, data.view2, rng)
    for _ in range(TRIES):
        if _overlap(first, second) >= data.min_overlap:
            break
        second = max(
            second,
            draw_crop(width, height, data.view2, rng),
            key=lambda crop: _overlap(first, crop),
        )
    return first, second


def _overlap(first: Crop, second: Crop) -> float:
    """Shared area as a share of the smaller crop."""
    shared = 1
    for start, length in ((0, 2), (1, 3)):
        low = max(first[start], second[start])
        shared *= max(0, min(first[start] + first[length], second[start] + second[length]) - low)
    return shared / min(first[2] * first[3], second[2] * second[3])


def draw_crop(width: int, height: int, view: View, rng: np.random.Generator) -> Crop:
    """(top, left, height, width) in px: area share and log-uniform ratio within the view's ranges
    (Szegedy et al. 2015).
    """
    for _ in range(TRIES):
        area = width * height * rng.uniform(*view.scale)
        ratio = math.exp(rng.uniform(*np.log(view.ratio)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    # No such crop fits a very long image: the largest central one of an allowed ratio.
    ratio = min(max(width / height, view.ratio[0]), view.ratio[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w
