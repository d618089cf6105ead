"""A training batch: two views of each image, and the geometry of each view. B: images; H, W:
pixels.
"""

from typing import NamedTuple

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
