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


def preprocessing(model: Backbone, rule: Literal["model", "as-is"] = "model") -> Preprocessing:
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


def evaluation_transform(values: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """PIL RGB -> fp32 [3, H, W]: timm's evaluation transform, or, as-is, its normalisation
    alone.
    """
    return _timm_transform(values)


def evaluation_pixels(values: Preprocessing) -> Callable[[Image.Image], Tensor]:
    """PIL RGB -> uint8 [3, H, W]: `evaluation_transform` without the normalisation, which
    `normalise` gives to the bit.

    A quarter of the bytes pass from the workers to the model.
    """
    return _timm_transform(values, normalize=False)


def _timm_transform(
    values: Preprocessing, normalize: bool = True
) -> Callable[[Image.Image], Tensor]:
    given = values.model_dump(exclude={"rule"})
    if values.rule == "as-is":
        # A crop and a resize to the size an image already has leave it as it is.
        given |= {"crop_pct": 1.0}
    transform: Any = create_transform(**given, is_training=False, normalize=normalize)
    return transform


def normalise(images: Tensor, values: Preprocessing) -> Tensor:
    """uint8 [B, 3, H, W] -> torch's default type, fp32, on the device the images are on."""
    mean, std = _on_device(values.mean, values.std, images.device, torch.get_default_dtype())
    return (
        images.to(mean.dtype, copy=True).div_(255).sub_(mean).div_(std)
    )  # one large tensor, not four


@cache
def _on_device(
    mean: tuple[float, ...], std: tuple[float, ...], where: torch.device, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Made once: a new tensor of Python numbers waits for the device."""
    with torch.inference_mode(False):
        first, second = (
            torch.tensor(value, device=where, dtype=kind).view(1, 3, 1, 1) for value in (mean, std)
        )
    return first, second
