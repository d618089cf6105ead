"""A training batch: two views of each image, and the geometry of each view. B: images; H, W:
pixels.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


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
    """The row of one image in a ViewBatch."""

    view1: Tensor  # uint8 [3, H, W]
    view2: Tensor  # uint8 [3, H, W]
    label: int
    image_id: int
    geometry1: ViewGeometry
    geometry2: ViewGeometry


def stack_images(images: Iterable[ImageViews]) -> ViewBatch:
    """The images as one batch, in order."""
    view1, view2, *columns = zip(*images, strict=True)
    return ViewBatch(torch.stack(view1), torch.stack(view2), *map(torch.tensor, columns))
