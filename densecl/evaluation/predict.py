"""Predictions of a model on a dataset: one row per image. Letters: B images, C classes."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from densecl.artifacts import Preprocessing
from densecl.errors import DataError
from densecl.evaluation.protocols import (
    PreprocessRule,
    resolve_preprocess_rule,
    resolve_scored_classes,
)
from densecl.metrics import is_topk_correct
from densecl.network.preprocessing import (
    build_image_loader,
    normalise_images,
    resolve_preprocessing,
)
from densecl.network.vit import Backbone
from densecl.runtime.hardware import get_device


def prepare_scoring(
    model: Backbone,
    frame: pd.DataFrame,
    classes: Sequence[str],
    *,
    protocol: str,
    preprocess: PreprocessRule | None = None,
    wnids: Sequence[str] = (),
) -> tuple[pd.DataFrame, Preprocessing, list[int]]:
    """The rows of `frame` whose classes are scored, their preprocessing, and the class indices that
    are not masked.
    """
    height, width = model.patch_embed.img_size
    data_config = resolve_preprocessing(
        model, resolve_preprocess_rule(protocol, preprocess, frame, (height, width))
    )
    scored_indices = resolve_scored_classes(protocol, frame, classes, wnids)
    scored_frame = frame[frame["label"].isin(scored_indices)].reset_index(drop=True)
    if scored_frame.empty:
        raise DataError(
            f"found {len(frame)} images, none of the {len(scored_indices)} classes that the "
            "dataset is scored over"
        )
    return scored_frame, data_config, scored_indices


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
    model_device = get_device()
    model = model.to(model_device).eval()
    loader = build_image_loader([root / path for path in frame["path"]], data_config, batch_size)
    labels = torch.tensor(frame["label"].to_numpy(dtype=np.int64, copy=True))
    parts = []
    for batch, row_numbers in iter_batches(loader):
        with torch.inference_mode():
            logits = (
                model(normalise_images(batch.to(model_device, non_blocking=True), data_config))
                .float()
                .cpu()
            )
        parts.append(score_logits(logits, labels[row_numbers], scored_indices))
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
