"""What a model expects of its input, as timm says it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.network.vit import Backbone


def resolve_preprocessing(
    model: Backbone, rule: Literal["model", "as-is"] = "model"
) -> Preprocessing:
    """The values of a timm model's configuration, at the size it was built for."""
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


def build_evaluation_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """PIL RGB -> fp32 [3, H, W]: timm's evaluation transform, or, as-is, its normalisation
    alone.
    """
    return _build_timm_transform(preprocessing)


def build_uint8_transform(preprocessing: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """PIL RGB -> uint8 [3, H, W]: `build_evaluation_transform` without the normalisation, which
    `normalise_images` gives to the bit.

    A quarter of the bytes pass from the workers to the model.
    """
    return _build_timm_transform(preprocessing, normalize=False)


def _build_timm_transform(
    preprocessing: Preprocessing, normalize: bool = True
) -> Callable[[Image.Image], Tensor]:
    settings = preprocessing.model_dump(exclude={"rule"})
    if preprocessing.rule == "as-is":
        # A crop and a resize to the size an image already has leave it as it is.
        settings |= {"crop_pct": 1.0}
    transform: Any = create_transform(**settings, is_training=False, normalize=normalize)
    return transform


def normalise_images(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """uint8 [B, 3, H, W] -> torch's default type, fp32, on the device the images are on."""
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
    """Made once: a new tensor of Python numbers waits for the device."""
    with torch.inference_mode(False):
        mean_tensor, std_tensor = (
            torch.tensor(value, device=device, dtype=dtype).view(1, 3, 1, 1)
            for value in (mean, std)
        )
    return mean_tensor, std_tensor
