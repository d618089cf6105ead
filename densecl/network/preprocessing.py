"""Preprocessing of evaluation images, from the configuration of the timm model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal, cast

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.network.vit import Backbone


def resolve_preprocessing(
    model: Backbone, rule: Literal["model", "as-is"] = "model"
) -> Preprocessing:
    """The preprocessing of a timm model, at the input size that it was built for."""
    cfg: Any = model.pretrained_cfg
    return Preprocessing(
        rule=rule,
        input_size=(3, *model.patch_embed.img_size),
        mean=cfg["mean"],
        std=cfg["std"],
        interpolation=cfg["interpolation"],
        crop_pct=cfg["crop_pct"],
        crop_mode=cfg.get("crop_mode", "center"),
    )


def build_evaluation_transform(
    preprocessing: Preprocessing, normalize: bool = True
) -> Callable[[Image.Image], Tensor]:
    """PIL RGB -> fp32 [3, H, W]: timm's evaluation transform; with `as-is` only normalisation.

    Without `normalize`, uint8 [3, H, W]: `normalise_images` then adds the normalisation, with equal
    bits; workers send a quarter of the bytes.
    """
    settings = preprocessing.model_dump(exclude={"rule"})
    if preprocessing.rule == "as-is":
        # Resizing and cropping to the size that an image already has changes nothing.
        settings |= {"crop_pct": 1.0}
    transform = create_transform(**settings, is_training=False, normalize=normalize)
    return cast("Callable[[Image.Image], Tensor]", transform)


def normalise_images(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 [B, 3, H, W] -> normalised, in torch's default dtype, on the same device."""
    mean, std = _get_mean_and_std(
        preprocessing.mean, preprocessing.std, images.device, torch.get_default_dtype()
    )
    return (
        images.to(mean.dtype, copy=True).div_(255).sub_(mean).div_(std)
    )  # one large tensor, not four


@cache
def _get_mean_and_std(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Cached: a new tensor of Python numbers waits for the GPU."""
    with torch.inference_mode(False):
        mean_tensor, std_tensor = (
            torch.tensor(value, device=device, dtype=dtype).view(1, 3, 1, 1)
            for value in (mean, std)
        )
    return mean_tensor, std_tensor
