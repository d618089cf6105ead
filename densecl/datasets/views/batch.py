"""A training batch: two views of each image, and the geometry of each view. B: images; H, W:
pixels.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from densecl.datasets.views.color_change import ColorChange


class ViewGeometry(NamedTuple):
    """Crop of a view as shares of the image's height and width; the flip follows the crop."""

    top: float
    left: float
    height: float
    width: float
    flipped: bool


class ViewBatch(NamedTuple):
    view1: Tensor  # uint8 [B, 3, H, W]
    view2: Tensor  # uint8 [B, 3, H, W]
    labels: Tensor  # [B]
    image_ids: Tensor  # [B] rows of the manifest
    geometry1: Tensor  # [B, 5] as ViewGeometry
    geometry2: Tensor  # [B, 5]


class ImageViews(NamedTuple):
    """The row of one image in a ViewBatch, and the colour changes that are left to the device."""

    view1: Tensor  # uint8 [3, H, W]
    view2: Tensor  # uint8 [3, H, W]
    label: int
    image_id: int
    geometry1: ViewGeometry
    geometry2: ViewGeometry
    changes: tuple[ColorChange, ColorChange] | None  # of view 1 and view 2


class UncoloredBatch(NamedTuple):
    """Views that are cropped and flipped; their colour changes are left to the device."""

    batch: ViewBatch
    changes1: Tensor  # float64 [B, 9] as ColorChange.to_row
    changes2: Tensor  # [B, 9]


LoadedBatch = ViewBatch | UncoloredBatch


def get_views(loaded: LoadedBatch) -> ViewBatch:
    """The views as the loader has left them."""
    return loaded.batch if isinstance(loaded, UncoloredBatch) else loaded


def collate_images(images: Iterable[ImageViews]) -> LoadedBatch:
    """`stack_images`, for a loader. In a worker, the tensors are in shared memory: an error is
    raised here where that is full. Else the thread that sends them would lose the batch, and the
    training would wait for it for ever.
    """
    loaded = stack_images(images)
    if get_worker_info() is not None:
        tensors = (*get_views(loaded), *(loaded[1:] if isinstance(loaded, UncoloredBatch) else ()))
        for tensor in tensors:
            tensor.share_memory_()
    return loaded


def stack_images(images: Iterable[ImageViews]) -> LoadedBatch:
    """The images as one batch, in order."""
    view1, view2, *columns, changes = zip(*images, strict=True)
    batch = ViewBatch(torch.stack(view1), torch.stack(view2), *map(torch.tensor, columns))
    if None in changes:
        return batch
    rows = ([change.to_row() for change in of_view] for of_view in zip(*changes, strict=True))
    return UncoloredBatch(batch, *(torch.tensor(r, dtype=torch.float64) for r in rows))
