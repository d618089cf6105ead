"""Random erasing of training views (Zhong et al. 2020): the augmentation that a contrastive loss
must beat under occlusion.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.config.params import ViewParams
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.crops import draw_crop
from densecl.seeding import derive_seed

RECTANGLE = ViewParams(scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3))  # of the view; as in timm


def draw_rectangles(
    image_ids: Sequence[str],
    size: tuple[int, int],
    probability: float,
    count: int,
    seed: int,
    epoch: int,
) -> Tensor:
    """(top, left, bottom, right) in px of `count` rectangles in each view of each image, int64
    [2, B, count, 4]; of a view that stays whole, zeros. They depend on (seed, epoch, image) alone.
    """
    height, width = size
    rectangles = np.zeros((2, len(image_ids), count, 4), np.int64)
    for place, image_id in enumerate(image_ids):
        rng = np.random.default_rng(derive_seed(seed, "erasing", epoch, image_id))
        for view in rectangles:
            if rng.random() < probability:
                for corners in view[place]:
                    top, left, h, w = draw_crop(width, height, RECTANGLE, rng)
                    corners[:] = top, left, top + h, left + w
    return torch.from_numpy(rectangles)


def erase_rectangles(
    batch: ViewBatch, rectangles: Tensor, preprocessing: Preprocessing
) -> ViewBatch:
    """The batch with the mean colour of training in the rectangles [2, B, n, 4], on its device."""
    color = torch.tensor([round(255 * mean) for mean in preprocessing.mean], dtype=torch.uint8)
    rectangles = rectangles.to(batch.view1.device, non_blocking=True)
    color = color.to(batch.view1.device, non_blocking=True).view(3, 1, 1)
    view1, view2 = (
        torch.where(_build_mask(view, corners), color, view)
        for view, corners in zip((batch.view1, batch.view2), rectangles, strict=True)
    )
    return batch._replace(view1=view1, view2=view2)


def _build_mask(view: Tensor, corners: Tensor) -> Tensor:
    """Where the rectangles [B, n, 4] lie in a view [B, 3, H, W]; bool [B, 1, H, W]."""
    y = torch.arange(view.shape[2], device=view.device).view(-1, 1)
    x = torch.arange(view.shape[3], device=view.device)
    top, left, bottom, right = corners[..., None, None].unbind(2)  # [B, n, 1, 1]
    return ((y >= top) & (y < bottom) & (x >= left) & (x < right)).any(1, keepdim=True)
