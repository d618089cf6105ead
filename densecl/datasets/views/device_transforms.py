"""Colour jitter and blur of a batch in torch, where `data.augment_on` is `device`.

The definitions are those of torchvision.transforms.v2.functional, which takes one factor for the
whole batch; here each image has its own, and its own order of adjustments. Pixels of an image do
not depend on the rest of the batch. B: images; H, W: pixels.
"""

from collections.abc import Callable
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.datasets.views.batch import LoadedBatch, UncoloredBatch, ViewBatch, get_views
from densecl.datasets.views.color_change import ADJUSTMENTS, get_blur_kernel

GREY = (0.299, 0.587, 0.114)  # weights of ITU-R 601


def finish_batch(loaded: LoadedBatch, device: torch.device) -> ViewBatch:
    """The batch on the device, with colour changes applied there if the loader has left them."""
    views = get_views(loaded)
    batch = ViewBatch(*(column.to(device, non_blocking=True) for column in views))
    if isinstance(loaded, UncoloredBatch):
        view1 = apply_color_changes(batch.view1, loaded.changes1)
        view2 = apply_color_changes(batch.view2, loaded.changes2)
        batch = batch._replace(view1=view1, view2=view2)
    return batch


def apply_color_changes(images: Tensor, changes: Tensor) -> Tensor:
    """uint8 [B, 3, H, W] on any device; changes [B, 9] on the CPU, as `ColorChange.to_row`.

    Levels are cut to whole numbers after each adjustment, as on the CPU path.
    """
    images, places = images.clone(), len(ADJUSTMENTS)
    indices, factors, sigmas = changes.split((places, places, 1), dim=1)
    for place in range(places):
        for index, adjust in enumerate(ADJUST):
            _change_rows(images, indices[:, place] == index, factors[:, place], adjust)
    _change_rows(images, sigmas[:, 0] > 0, sigmas[:, 0], blur)
    return images


def _change_rows(
    images: Tensor, chosen: Tensor, factors: Tensor, change: Callable[[Tensor, Tensor], Tensor]
) -> None:
    """Change the chosen rows in place. They are listed on the CPU: nothing waits for the GPU."""
    rows = chosen.nonzero()[:, 0]
    if len(rows):
        chosen_factors = factors[rows].to(images.device, non_blocking=True).view(-1, 1, 1, 1)
        rows = rows.to(images.device, non_blocking=True)
        images.index_copy_(0, rows, change(images[rows], chosen_factors))


def adjust_brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply every level of an image by its factor; factors: float64 [B, 1, 1, 1]."""
    return _cut_levels(images * factors.float())


def adjust_contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the mean grey level of each image."""
    sums = images.sum((2, 3), keepdim=True, dtype=torch.int64)  # exact in any order of summation
    middle = _mix_grey(sums.double()) / images[0, 0].numel()
    return _cut_levels(images * factors.float() + ((1 - factors) * middle).float())


def adjust_saturation(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the grey level of each pixel."""
    grey = _mix_grey(images.float()) + 1e-3  # so that grey pixels stay as they are
    return _cut_levels(images * factors.float() + (1 - factors).float() * grey)


def adjust_hue(images: Tensor, factors: Tensor) -> Tensor:
    """Rotate the hue of HSV by a share of the full circle, in [-0.5, 0.5]."""
    red, green, blue = images.float().split(1, dim=1)  # [B, 1, H, W]
    value, low = images.amax(1, keepdim=True).float(), images.amin(1, keepdim=True).float()
    chroma = value - low
    divisor = chroma.clamp(min=1)  # grey has no hue: any will do
    hue = torch.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    hue = torch.where(value == red, (green - blue) / divisor, hue)  # in sixths of the circle
    turned = hue + 6 * factors.float()
    channels = []
    for corner in (5, 3, 1):  # red, green, blue
        distance = (turned + corner) % 6
        share = torch.minimum(distance, 4 - distance).clamp(0, 1)
        channels.append(value - chroma * share)
    return _cut_levels(torch.cat(channels, 1) + 0.5)


def blur(images: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur with a sigma in px per image, [B, 1, 1, 1]; borders are reflected."""
    height, width = images.shape[-2:]
    reach = get_blur_kernel(height) // 2
    offsets = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-((offsets / sigmas) ** 2) / 2)  # [B, 1, 1, K]
    weights = (weights / weights.sum(-1, keepdim=True)).float()
    levels = F.pad(images.float(), (reach,) * 4, mode="reflect")
    for axis, length in ((2, height), (3, width)):
        shifted = (
            levels.narrow(axis, k, length) * weights[..., k, None] for k in range(len(offsets))
        )
        levels = reduce(torch.add, shifted)
    return _cut_levels(levels + 0.5)


def _mix_grey(channels: Tensor) -> Tensor:
    """[B, 3, ...] -> [B, 1, ...]."""
    red, green, blue = channels.split(1, dim=1)
    grey: Tensor = GREY[0] * red + GREY[1] * green + GREY[2] * blue
    return grey


def _cut_levels(levels: Tensor) -> Tensor:
    """uint8, rounded down."""
    return levels.clamp(0, 255).to(torch.uint8)


ADJUST = [adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue]  # as ADJUSTMENTS
