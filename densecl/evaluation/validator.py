"""Accuracy of a model while it trains; logged only, so no training stage depends on it."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from densecl import distributed
from densecl.datasets.storage.image_places import locate_images
from densecl.datasets.storage.usable_images import ImageSet
from densecl.evaluation.predict import iter_batches
from densecl.evaluation.scoring import prepare_scoring
from densecl.metrics import is_topk_correct
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import build_image_loader, normalise_images
from densecl.network.vit import Backbone
from densecl.runtime.hardware import get_device

TOP_K = (1, 5)
MAX_KEPT_BYTES = 2**30  # of the preprocessed images of all datasets, in each process


def build_validator(
    datasets: Mapping[str, ImageSet],
    classes: Sequence[str],
    batch_size: int,
    keep_images: bool = False,
) -> Callable[[Backbone], dict[str, float]]:
    """A function that returns `top1/<dataset>` and `top5/<dataset>`; ranks share the images.

    All its calls are for models of one architecture. With `keep_images`, the images are decoded and
    preprocessed in the first call only; those of datasets beyond MAX_KEPT_BYTES in every call.
    """
    prepared: dict[str, _ValidationSet] = {}

    def compute_accuracies(model: Backbone) -> dict[str, float]:
        if not prepared:
            budget = MAX_KEPT_BYTES if keep_images else 0
            for name, images in datasets.items():
                prepared[name] = _ValidationSet(name, model, images, classes, batch_size, budget)
                budget -= prepared[name].kept_bytes
        return {
            f"top{k}/{name}": accuracy
            for name, part in prepared.items()
            for k, accuracy in zip(TOP_K, part.compute_accuracies(model), strict=True)
        }

    return compute_accuracies


class _ValidationSet:
    """The images of a dataset that this rank classifies, in batches."""

    def __init__(
        self,
        name: str,
        model: Backbone,
        images: ImageSet,
        classes: Sequence[str],
        batch_size: int,
        budget: int,
    ) -> None:
        frame, self.data_config, self.scored_indices = prepare_scoring(
            model,
            images.frame,
            classes,
            protocol=images.protocol,
            preprocess=images.preprocess,
            wnids=images.classes,
            name=name,
        )
        # Each image in one process: none is counted twice.
        frame = frame.iloc[distributed.get_rank() :: distributed.get_world_size()]
        self.labels = torch.tensor(frame["label"].to_numpy(np.int64, copy=True))
        self.loader = build_image_loader(
            locate_images(images.root, frame["path"]), self.data_config, batch_size
        )
        size = len(frame) * math.prod(self.data_config.input_size)  # bytes of uint8 images
        self.kept_bytes = size if size <= budget else 0
        self.kept_batches = list(self._load_batches()) if self.kept_bytes else None

    @use_fp32_products()
    def compute_accuracies(self, model: Backbone) -> list[float]:
        """Shares of the images, of all ranks, whose label is among the TOP_K largest logits."""
        device = get_device()
        model = model.to(device).eval()
        counts = torch.zeros(len(TOP_K), dtype=torch.float64)
        for images, rows in self.kept_batches or self._load_batches():
            with torch.inference_mode():
                logits = model(normalise_images(images.to(device), self.data_config)).float().cpu()
            masked = torch.full_like(logits, -torch.inf)
            masked[:, self.scored_indices] = logits[:, self.scored_indices]
            hits = [is_topk_correct(masked, self.labels[rows], k) for k in TOP_K]
            counts += torch.stack(hits).sum(1)
        *correct, total = distributed.all_reduce_sum((*counts.tolist(), float(len(self.labels))))
        return [count / total for count in correct]

    def _load_batches(self) -> Iterable[tuple[Tensor, Tensor]]:
        return iter_batches(self.loader) if len(self.labels) else ()
