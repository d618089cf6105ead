"""Predictions of a model on images: one row per image. Letters: B images, C classes."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from densecl.artifacts import Preprocessing
from densecl.datasets.storage.image_places import locate_images
from densecl.errors import DataError
from densecl.evaluation.group_scores import ScoredGroups, score_groups
from densecl.metrics import is_topk_correct
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import build_image_loader, normalise_images
from densecl.network.vit import Backbone
from densecl.runtime.hardware import get_device


def predict_images(
    model: Backbone,
    frame: pd.DataFrame,
    root: Path,
    data_config: Preprocessing,
    scored_indices: list[int],
    batch_size: int,
) -> pd.DataFrame:
    """Predictions, one row per image of the manifest `frame`; logits outside `scored_indices` are
    masked.
    """
    batches = iter_logits(model, frame, root, data_config, batch_size)
    return build_predictions(frame, batches, scored_indices)


def iter_logits(
    model: Backbone, frame: pd.DataFrame, root: Path, data_config: Preprocessing, batch_size: int
) -> Iterator[Tensor]:
    """Logits fp32 [B, C] on the CPU, batch by batch, of the images of `frame` in its order.

    All products are in fp32, whatever precision trained the model or the user has set.
    """
    device = get_device()
    model = model.to(device).eval()
    loader = build_image_loader(locate_images(root, frame["path"]), data_config, batch_size)
    for batch, _ in iter_batches(loader):
        with torch.inference_mode(), use_fp32_products():
            images = normalise_images(batch.to(device, non_blocking=True), data_config)
            logits = model(images).float().cpu()
        yield logits


def build_predictions(
    frame: pd.DataFrame,
    batches: Iterable[Tensor],
    scored_indices: list[int],
    groups: ScoredGroups | None = None,
) -> pd.DataFrame:
    """Prediction rows of the images of `frame`, from their logits [B, C] in the same order, in
    batches of any size. With `groups`, labels are groups.
    """
    labels = torch.tensor(frame["label"].to_numpy(dtype=np.int64, copy=True))
    parts, start = [], 0
    for logits in batches:
        true = labels[start : start + len(logits)]
        parts.append(
            score_groups(logits, true, groups)
            if groups
            else score_logits(logits, true, scored_indices)
        )
        start += len(logits)
    rows = pd.concat(parts, ignore_index=True)
    rows.insert(0, "image_id", frame["image_id"].to_numpy())
    return rows


def iter_batches(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate over a loader; a worker's DataError is raised with its own message only."""
    try:
        yield from loader
    except DataError as error:
        message = str(error).strip().splitlines()[-1]
        raise DataError(
            message.removeprefix(f"{DataError.__module__}.{DataError.__name__}: ")
        ) from None


def score_logits(logits: Tensor, labels: Tensor, scored_indices: list[int]) -> pd.DataFrame:
    """Prediction rows of logits [B, C]: over the scored classes, and over all (`_unmasked`)."""
    masked = torch.full_like(logits, -torch.inf)
    masked[:, scored_indices] = logits[:, scored_indices]
    probabilities, unmasked = masked.double().softmax(1), logits.double().softmax(1)
    prediction, prediction_unmasked = masked.argmax(1), logits.argmax(1)
    columns = {
        "label": labels,
        "prediction": prediction,
        "prediction_unmasked": prediction_unmasked,
        "confidence": probabilities.amax(1).float(),
        "confidence_unmasked": unmasked.amax(1).float(),
        "p_true": probabilities.gather(1, labels[:, None])[:, 0].float(),
        "correct": prediction == labels,
        "correct5": is_topk_correct(masked, labels, 5),
        "correct_unmasked": prediction_unmasked == labels,
        "correct5_unmasked": is_topk_correct(logits, labels, 5),
    }
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def create_empty_predictions() -> pd.DataFrame:
    """An empty table of predictions."""
    rows = score_logits(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), [0])
    rows.insert(0, "image_id", pd.Series([], dtype="str"))
    return rows
