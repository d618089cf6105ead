"""What probes share: the model, and the validation images, decoded once. B images, C classes."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from densecl.artifacts import EvaluatePlan, Preprocessing
from densecl.config.params import CONTROL_SET
from densecl.evaluation.cached_predict import LabelledImages
from densecl.evaluation.predict import iter_batches
from densecl.evaluation.score import ModelEvaluator
from densecl.evaluation.scoring import NoKnownClassError, select_scored
from densecl.evaluation.sources import find_sources
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import build_image_loader, normalise_images
from densecl.network.vit import Backbone
from densecl.runtime.hardware import get_device
from densecl.runtime.progress import write_progress
from densecl.seeding import derive_seed

MAX_KEPT_BYTES = 2**31  # of decoded validation images; more are decoded again for each curve


class ProbeContext:
    """One model on its device, in evaluation mode, and the validation images it is scored on."""

    def __init__(self, evaluator: ModelEvaluator, plan: EvaluatePlan) -> None:
        self.evaluator, self.plan = evaluator, plan
        self.model: Backbone = evaluator.model.to(get_device()).eval()
        self._kept: list[Tensor] | None = None
        self.features: dict[str, tuple[Tensor, Tensor]] = {}  # of sets, kept by frozen_features.py

    @cached_property
    def is_scored(self) -> bool:
        """Whether the model knows a class of the validation images. The tokens of one that does not
        are probed on the images and classes of the modes.
        """
        try:
            self.evaluator.resolve_scored(CONTROL_SET)
        except NoKnownClassError:
            if not self.evaluator.trained:
                raise
            return False
        return True

    @property
    def classes(self) -> list[str]:
        """wnids that labels count."""
        return self.evaluator.classes if self.is_scored else self.evaluator.trained

    @cached_property
    def validation(self) -> LabelledImages:
        if self.is_scored:
            return self.evaluator.load_images(CONTROL_SET)
        return self.evaluator.load_unscored(CONTROL_SET)

    @cached_property
    def scored_indices(self) -> list[int]:
        """Classes of the validation images; the logits of all others are masked."""
        if self.is_scored:
            return self.evaluator.resolve_scored(CONTROL_SET)
        return self.evaluator.resolve_unscored(self.validation)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Manifest rows of the scored validation images, in the order of `iter_images`."""
        return select_scored(CONTROL_SET, self.validation.frame, self.scored_indices)

    @cached_property
    def plain_rows(self) -> pd.DataFrame:
        """Predictions on the unaltered validation images, those of the dataset's own cell, in the
        order of `frame`: strength 0 of every probe.
        """
        rows, _ = self.evaluator.predictor.predict(self.validation, self.scored_indices)
        return rows

    @property
    def preprocessing(self) -> Preprocessing:
        return self.validation.preprocessing

    def build_rows(self) -> pd.DataFrame:
        """`image_id` and `source` of the validation images, to which a probe adds its columns."""
        sources = find_sources(CONTROL_SET, self.frame["image_id"])
        return pd.DataFrame(
            {"image_id": self.frame["image_id"].to_numpy(), "source": sources.to_numpy()}
        )

    def iter_images(self) -> Iterator[Tensor]:
        """Batches uint8 [B, 3, H, W] of the validation images, decoded, resized and cropped as
        they are evaluated; kept in memory if they fit.
        """
        if self._kept is not None:
            yield from self._kept
            return
        size = len(self.frame) * math.prod(self.preprocessing.input_size)
        batches: list[Tensor] = []
        files = [self.validation.root / path for path in self.frame["path"]]
        for batch in iter_pixels(files, self.preprocessing, self.plan.batch_size):
            if size <= MAX_KEPT_BYTES:
                batches.append(batch)
            yield batch
        if size <= MAX_KEPT_BYTES:
            self._kept = batches

    def iter_images_at(self, positions: Sequence[int]) -> Iterator[Tensor]:
        """Batches uint8 [B, 3, H, W] of the validation images at these places of `frame`, in this
        order, as `iter_images` gives them.
        """
        size = self.plan.batch_size
        if self._kept is None:
            files = [self.validation.root / self.frame["path"].iloc[place] for place in positions]
            yield from iter_pixels(files, self.preprocessing, size)
            return
        for start in range(0, len(positions), size):
            places = positions[start : start + size]
            yield torch.stack([self._kept[place // size][place % size] for place in places])

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> normalised images on the model's device."""
        return normalise_images(images.to(get_device(), non_blocking=True), self.preprocessing)

    def compute_logits(self, images: Tensor) -> Tensor:
        """fp32 [B, C] on the CPU, of uint8 [B, 3, H, W] or of images that are normalised already;
        masked to the scored classes.
        """
        if images.dtype == torch.uint8:
            images = self.normalise(images)
        with torch.inference_mode(), use_fp32_products():
            logits = self.model(images).float().cpu()
        masked = torch.full_like(logits, -torch.inf)
        masked[:, self.scored_indices] = logits[:, self.scored_indices]
        self.evaluator.predictor.images_run += len(images)
        return masked

    def predict_altered(
        self,
        strengths: Sequence[float],
        alter: Callable[[Tensor, pd.DataFrame], Iterable[Tensor]],
        name: str = "",
    ) -> dict[float, Tensor]:
        """Predicted classes int64 [n] of the altered validation images, in the order of `frame`,
        by strength. The images are read once for all strengths.

        `alter` gets a batch uint8 [B, 3, H, W] and its rows of `frame`, and returns, in the order
        of the strengths, what `compute_logits` takes.
        """
        parts: dict[float, list[Tensor]] = {strength: [] for strength in strengths}
        start = 0
        for images in self.iter_images():
            write_progress(start, len(self.frame), name)
            rows = self.frame.iloc[start : start + len(images)]
            for strength, altered in zip(strengths, alter(images, rows), strict=True):
                parts[strength].append(self.compute_logits(altered).argmax(1))
            start += len(images)
        return {strength: torch.cat(batches) for strength, batches in parts.items()}

    def is_correct(self, predicted: Tensor) -> Tensor:
        """float64 [n]: 1.0 where a prediction is the label."""
        labels = torch.tensor(self.frame["label"].to_numpy(copy=True))
        return (predicted == labels).double()


def iter_pixels(
    files: Sequence[Path], preprocessing: Preprocessing, batch_size: int
) -> Iterator[Tensor]:
    """Batches uint8 [B, 3, H, W] of preprocessed image files, in their order."""
    for batch, _ in iter_batches(build_image_loader(list(files), preprocessing, batch_size)):
        yield batch


def get_places(rows: pd.DataFrame) -> slice:
    """Places in `frame` of the rows of a batch."""
    return slice(rows.index[0], rows.index[-1] + 1)


def draw_numbers(image_ids: Iterable[str], count: int, *words: str) -> Tensor:
    """Numbers in [0, 1), fp64 [n, count], that depend on words and image_id only: every model meets
    the same ones, in batches of any size.
    """
    generators = (create_generator(*words, image_id) for image_id in image_ids)
    return torch.stack(
        [torch.rand(count, generator=generator, dtype=torch.float64) for generator in generators]
    )


def create_generator(*words: str) -> torch.Generator:
    """Random numbers on the CPU that depend on the words only, such as probe and image_id: every
    model meets the same ones, in batches of any size.
    """
    return torch.Generator().manual_seed(derive_seed(0, *words))
