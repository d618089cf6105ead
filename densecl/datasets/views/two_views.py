"""Two augmented views per image; randomness depends on (seed, epoch, image), not on the number of
workers.

Letters: B images, H and W pixels of a view.
"""

import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densecl import distributed
from densecl.config.params import DataParams, ViewParams
from densecl.datasets.views.batch import ImageViews, ViewBatch, ViewGeometry, stack_images
from densecl.datasets.views.read_pixels import Pixels, read_pixels
from densecl.datasets.views.transforms import (
    apply_color_jitter,
    apply_gaussian_blur,
    draw_uniform,
    resize_crop,
)
from densecl.seeding import derive_seed

MAX_CROP_TRIES = 10  # before the whole image is taken, as in torchvision's RandomResizedCrop
BLUR_KERNEL, BLUR_SIZE = 23, 224  # px, at px: SimCLR's tenth of the image

Crop = tuple[int, int, int, int]  # top, left, height, width in px


class TwoViewDataset(Dataset[ImageViews]):
    """Dataset indexed by (epoch, row)."""

    def __init__(
        self, frame: pd.DataFrame, root: Path, data: DataParams, size: tuple[int, int], seed: int
    ) -> None:
        self.paths, self.labels = frame["path"].tolist(), frame["label"].tolist()
        self.image_ids, self.rows = frame["image_id"].tolist(), frame.index.tolist()
        self.root, self.data, self.size, self.seed = root, data, size, seed
        self.cached_pixels: list[Pixels] | None = None
        if data.cache == "ram":
            with ThreadPoolExecutor() as threads:  # decoding runs outside the interpreter's lock
                self.cached_pixels = list(threads.map(self._read_row, range(len(self))))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int]) -> ImageViews:
        epoch, row = item
        pixels = self.cached_pixels[row] if self.cached_pixels else self._read_row(row)
        height, width = pixels.shape[:2]
        rng = np.random.default_rng(derive_seed(self.seed, "views", epoch, self.image_ids[row]))
        crop1, crop2 = draw_crops(width, height, self.data, rng)
        view1, geometry1 = augment_view(pixels, self.data.view1, crop1, self.data, self.size, rng)
        view2, geometry2 = augment_view(pixels, self.data.view2, crop2, self.data, self.size, rng)
        return ImageViews(view1, view2, self.labels[row], self.rows[row], geometry1, geometry2)

    def _read_row(self, row: int) -> Pixels:
        return read_pixels(self.root / self.paths[row])


def draw_epoch_order(length: int, epoch: int, seed: int) -> list[tuple[int, int]]:
    """(epoch, row) of every row, in an order drawn from (seed, epoch)."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return [(epoch, row) for row in torch.randperm(length, generator=generator).tolist()]


def create_epoch_loader(
    views: TwoViewDataset,
    epoch: int,
    batch_size: int,
    steps: int,
    workers: int,
    start: int = 0,
    parts: int = 1,
) -> Iterable[ViewBatch]:
    """A loader of `steps` full batches of one epoch from batch `start` on. An incomplete last batch
    is dropped; the order differs per epoch. With several processes, each loads its share of the
    `parts` of every batch.
    """
    order = draw_epoch_order(len(views), epoch, views.seed)
    order = order[start * batch_size : steps * batch_size]
    return DataLoader(
        views,
        batch_size=batch_size // distributed.get_world_size(),
        sampler=distributed.shard_epoch(order, batch_size, parts),
        num_workers=workers,
        drop_last=True,
        collate_fn=stack_images,
        pin_memory=torch.cuda.is_available(),
        # Workers draw nothing, but without it the global generator would advance.
        generator=torch.Generator().manual_seed(0),
    )


def augment_view(
    pixels: Pixels,
    view: ViewParams,
    crop: Crop,
    data: DataParams,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Tensor, ViewGeometry]:
    """Augment uint8 [H, W, 3] to uint8 [3, *size] with its geometry: crop, then flip, colour
    jitter, blur.
    """
    flipped = bool(rng.random() < data.flip)
    augmented = resize_crop(pixels, crop, size)
    if flipped:
        augmented = np.asarray(cv2.flip(augmented, 1), np.uint8)
    augmented = apply_color_jitter(augmented, data.color_jitter, rng)
    if rng.random() < view.blur:
        scale = size[0] / BLUR_SIZE
        kernel = max(3, 2 * round((BLUR_KERNEL * scale - 1) / 2) + 1)
        sigma = draw_uniform(*data.blur_sigma, rng) * scale
        augmented = apply_gaussian_blur(augmented, kernel, sigma)
    h, w = pixels.shape[:2]
    top, left, height, width = crop
    planes = torch.from_numpy(np.stack(cv2.split(augmented)))  # much faster than a transposed copy
    return planes, ViewGeometry(top / h, left / w, height / h, width / w, flipped)


def draw_crops(
    width: int, height: int, data: DataParams, rng: np.random.Generator
) -> tuple[Crop, Crop]:
    """Draw the crops of both views; redraw that of view 2 until `min_overlap` holds, else take the
    best try.
    """
    crop1 = draw_crop(width, height, data.view1, rng)
    crop2 = draw_crop(width, height, data.view2, rng)
    for _ in range(MAX_CROP_TRIES):
        if _compute_overlap(crop1, crop2) >= data.min_overlap:
            break
        crop2 = max(
            crop2,
            draw_crop(width, height, data.view2, rng),
            key=lambda crop: _compute_overlap(crop1, crop),
        )
    return crop1, crop2


def _compute_overlap(crop1: Crop, crop2: Crop) -> float:
    """Area of the intersection as a share of the smaller crop."""
    shared = 1
    for start, length in ((0, 2), (1, 3)):
        low = max(crop1[start], crop2[start])
        shared *= max(0, min(crop1[start] + crop1[length], crop2[start] + crop2[length]) - low)
    return shared / min(crop1[2] * crop1[3], crop2[2] * crop2[3])


def draw_crop(width: int, height: int, view: ViewParams, rng: np.random.Generator) -> Crop:
    """Draw (top, left, height, width) in px; area share and log-uniform aspect ratio within the
    view's ranges (Szegedy et al. 2015).
    """
    log_ratio = (math.log(view.ratio[0]), math.log(view.ratio[1]))
    for _ in range(MAX_CROP_TRIES):
        area = width * height * draw_uniform(*view.scale, rng)
        ratio = math.exp(draw_uniform(*log_ratio, rng))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    # No such crop fits a very long image: the largest central one of an allowed ratio.
    ratio = min(max(width / height, view.ratio[0]), view.ratio[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return (height - h) // 2, (width - w) // 2, h, w
