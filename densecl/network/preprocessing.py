"""Preprocessing of evaluation images, from the configuration of the timm model, and a loader that
decodes and preprocesses them in worker processes.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, Literal, cast

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose

from densecl.artifacts import Preprocessing
from densecl.datasets.storage.decode import Orientation, decode_image
from densecl.datasets.storage.image_root import ImagePlace
from densecl.errors import DataError
from densecl.network.vit import Backbone
from densecl.runtime.hardware import count_workers


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
        exif=cfg.get("exif", "ignore"),  # no key of timm's, which ignores it
    )


def set_orientation(model: Backbone, exif: Orientation) -> None:
    """Let `resolve_preprocessing` of the model say whether images are turned upright."""
    cast("dict[str, Any]", model.pretrained_cfg)["exif"] = exif


def build_evaluation_transform(
    preprocessing: Preprocessing, normalize: bool = True
) -> Callable[[Image.Image], Tensor]:
    """PIL RGB -> fp32 [3, H, W]: timm's evaluation transform; with `as-is` only normalisation.

    Without `normalize`, uint8 [3, H, W]: `normalise_images` then adds the normalisation, with equal
    bits; workers send a quarter of the bytes.
    """
    settings = preprocessing.model_dump(exclude={"rule", "border", "exif"})
    if preprocessing.rule == "as-is":
        # Resizing and cropping to the size that an image already has changes nothing.
        settings |= {"crop_pct": 1.0}
    transform = create_transform(**settings, is_training=False, normalize=normalize)
    if preprocessing.border:
        transform = Compose([partial(cut_border, pixels=preprocessing.border), transform])
    return cast("Callable[[Image.Image], Tensor]", transform)


def cut_border(image: Image.Image, pixels: int) -> Image.Image:
    return image.crop((pixels, pixels, image.width - pixels, image.height - pixels))


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


class EvaluationImages(Dataset[tuple[Tensor, int]]):
    """Preprocessed images in the order of the manifest, each with its row number."""

    def __init__(
        self,
        paths: Sequence[ImagePlace],
        transform: Callable[[Image.Image], Tensor],
        size: tuple[int, int] | None,
        exif: Orientation = "ignore",
    ) -> None:
        self.paths, self.transform, self.size, self.exif = paths, transform, size, exif

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = decode_image(self.paths[row], self.exif)
        if self.size and image.size != self.size:
            raise DataError(
                f"{self.paths[row]}: found {image.width} x {image.height} px, expected "
                f"{self.size[0]} x {self.size[1]}: the dataset is evaluated as-is; set "
                f"evaluate.preprocess to model to resize it"
            )
        return self.transform(image), row


def build_image_loader(
    paths: Sequence[ImagePlace], data_config: Preprocessing, batch_size: int
) -> DataLoader[tuple[Tensor, int]]:
    """Batches in order of uint8 images [B, 3, H, W], not yet normalised, and row numbers [B]."""
    size = (
        (data_config.input_size[2], data_config.input_size[1])
        if data_config.rule == "as-is"
        else None
    )
    return DataLoader(
        EvaluationImages(
            paths,
            build_evaluation_transform(data_config, normalize=False),
            size,
            data_config.exif,
        ),
        batch_size=batch_size,
        num_workers=count_workers() if len(paths) > batch_size else 0,
        pin_memory=torch.cuda.is_available(),
        # A generator of its own: starting workers must not advance the global one.
        generator=torch.Generator(),
    )
