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


class UncoloredBatch(NamedTuple):
    """Views that are cropped and flipped; their colour changes are left to the device."""

    batch: ViewBatch
    changes1: Tensor  # float64 [B, 9] as ColorChange.to_tensor
    changes2: Tensor  # [B, 9]


LoadedBatch = ViewBatch | UncoloredBatch
