"""A loader of evaluation images, decoded and preprocessed in worker processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densecl.artifacts import Preprocessing
from densecl.datasets.storage.decode import decode_image
from densecl.errors import DataError
from densecl.network.preprocessing import build_evaluation_transform
from densecl.runtime.hardware import count_workers


class EvaluationImages(Dataset[tuple[Tensor, int]]):
    """Preprocessed images in the order of the manifest, each with its row number."""

    def __init__(
        self,
        paths: list[Path],
        transform: Callable[[Image.Image], Tensor],
        size: tuple[int, int] | None,
    ) -> None:
        self.paths, self.transform, self.size = paths, transform, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = decode_image(self.paths[row])
        if self.size and image.size != self.size:
            raise DataError(
                f"{self.paths[row]}: found {image.width} x {image.height} px, expected "
                f"{self.size[0]} x {self.size[1]}: the dataset is evaluated as-is; set "
                f"evaluate.preprocess to model to resize it"
            )
        return self.transform(image), row


def build_image_loader(
    paths: list[Path], data_config: Preprocessing, batch_size: int
) -> DataLoader[tuple[Tensor, int]]:
    """Batches in order of uint8 images [B, 3, H, W], not yet normalised, and row numbers [B]."""
    size = (
        (data_config.input_size[2], data_config.input_size[1])
        if data_config.rule == "as-is"
        else None
    )
    return DataLoader(
        EvaluationImages(paths, build_evaluation_transform(data_config, normalize=False), size),
        batch_size=batch_size,
        num_workers=count_workers() if len(paths) > batch_size else 0,
        pin_memory=torch.cuda.is_available(),
        # A generator of its own: starting workers must not advance the global one.
        generator=torch.Generator(),
    )
