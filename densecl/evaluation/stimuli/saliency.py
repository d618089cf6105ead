"""What is salient in an image, per patch of a model: objects by masks, or attention of a model."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from densecl.artifacts import Preprocessing
from densecl.errors import DataError
from densecl.evaluation.probing.context import ProbeContext
from densecl.evaluation.probing.transfer import (
    IGNORED,
    MASKS_AT_ONCE,
    TransferImages,
    load_images,
)
from densecl.network.attention import compute_cls_attention
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, get_patch_grid
from densecl.runtime.hardware import get_device


def load_object_shares(context: ProbeContext, name: str, grid: tuple[int, int]) -> Tensor:
    """fp32 [n, N]: share of each patch that the object of the image covers, of the validation
    images in the order of `frame`; NaN for images without a mask.

    `name`: the entry of `transfer` with the masks, found by the content of the images. DataError
    if it has none of them.
    """
    entry = select_known(context, load_images(context, name))
    shares = torch.cat(
        [
            compute_object_shares(torch.from_numpy(part.read_masks()), entry.holds_objects, grid)
            for part in entry.iter_parts(MASKS_AT_ONCE)
        ]
    )
    place = {digest: number for number, digest in enumerate(entry.frame["sha256"])}
    result = torch.full((len(context.frame), shares.shape[1]), torch.nan)
    for row, digest in enumerate(context.frame["sha256"]):
        if digest in place:
            result[row] = shares[place[digest]]
    return result


def select_known(context: ProbeContext, entry: TransferImages) -> TransferImages:
    """The masked images of an entry that are validation images, in their preprocessing."""
    preprocessing = context.preprocessing
    if preprocessing.rule == "as-is":  # neither resized nor cropped
        preprocessing = preprocessing.model_copy(update={"crop_pct": 1.0})
    masked = replace(entry.select_masked(), preprocessing=preprocessing)
    digests = masked.frame["sha256"]
    is_known = digests.isin(context.frame["sha256"]) & ~digests.duplicated()
    if not is_known.any():
        raise DataError(
            f"transfer.{entry.name}: none of its {len(masked.frame)} masked images is one of the "
            f"{len(context.frame)} validation images; expected masks of the validation images: set "
            f"its root to their folder"
        )
    return masked.select(is_known)


def compute_object_shares(masks: Tensor, holds_objects: bool, grid: tuple[int, int]) -> Tensor:
    """fp32 [n, N] of masks uint8 [n, H, W]: 1 in the object, or indices of classes, all of which
    but the background are objects.
    """
    objects = masks == 1 if holds_objects else (masks != 0) & (masks != IGNORED)
    height, width = masks.shape[-2:]
    size = (height // grid[0], width // grid[1])
    return functional.avg_pool2d(objects[:, None].float(), size).flatten(1)


def compute_attention_map(
    model: Backbone, preprocessing: Preprocessing, images: Tensor, grid: tuple[int, int]
) -> Tensor:
    """fp32 [B, N] on the CPU: attention of CLS to the patches in the last block, the mean over the
    heads, resized to `grid`.

    `images`: uint8 [B, 3, H, W] of any size; resized, not cropped, to the model's input, so that
    the map lies on the same pixels.
    """
    size = preprocessing.input_size[1:]
    if images.shape[-2:] != size:
        resized = functional.interpolate(
            images.float(), size, mode="bicubic", antialias=True, align_corners=False
        )
        images = resized.round().clamp(0, 255).to(torch.uint8)
    normalised = normalise_images(images.to(get_device()), preprocessing)
    attention = compute_cls_attention(model, normalised).mean(1)
    own = get_patch_grid(model)
    maps = attention.view(-1, 1, *own)
    if own != grid:
        maps = functional.interpolate(
            maps, grid, mode="bilinear", antialias=True, align_corners=False
        )
    return maps.flatten(1).cpu()
