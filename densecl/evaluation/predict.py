"""A model on a set: one row an image. Letters: B images, C classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from densecl.artifacts import Preprocessing
from densecl.errors import DataError
from densecl.evaluation.protocols import Rule, preprocess_rule, scored_classes
from densecl.metrics import correct_within
from densecl.network.image_loader import image_loader
from densecl.network.preprocessing import normalise, preprocessing
from densecl.network.vit import Backbone
from densecl.runtime.hardware import device


def scoring(
    model: Backbone,
    frame: pd.DataFrame,
    classes: Sequence[str],
    *,
    protocol: str,
    preprocess: Rule | None = None,
    given: Sequence[str] = (),
) -> tuple[pd.DataFrame, Preprocessing, list[int]]:
    """How a set is scored: the rows of `frame` whose class counts, their preprocessing, the indices
    that are not masked.
    """
    height, width = model.patch_embed.img_size
    values = preprocessing(model, preprocess_rule(protocol, preprocess, frame, (height, width)))
    scored = scored_classes(protocol, frame, classes, given)
    kept = frame[frame["label"].isin(scored)].reset_index(drop=True)
    if kept.empty:
        raise DataError(
            f"found {len(frame)} images, none of the {len(scored)} classes that the set is scored "
            f"over"
        )
    return kept, values, scored


def predict(
    model: Backbone,
    frame: pd.DataFrame,
    root: Path,
    values: Preprocessing,
    scored: list[int],
    batch_size: int,
) -> pd.DataFrame:
    """One row an image of the manifest `frame`; `scored` are the class indices whose logits are not
    masked.
    """
    where = device()
    model = model.to(where).eval()
    loader = image_loader([root / path for path in frame["path"]], values, batch_size)
    labels = torch.tensor(frame["label"].to_numpy(dtype=np.int64, copy=True))
    parts = []
    for batch, places in _batches(loader):
        with torch.inference_mode():
            logits = model(normalise(batch.to(where, non_blocking=True), values)).float().cpu()
        parts.append(score(logits, labels[places], scored))
    rows = pd.concat(parts, ignore_index=True)
    rows.insert(0, "image_id", frame["image_id"].to_numpy())
    return rows


def _batches(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """As the loader gives them; a worker's DataError in its own words, without the traceback that
    torch puts before them.
    """
    try:
        yield from loader
    except DataError as error:
        said = str(error).strip().splitlines()[-1]
        raise DataError(
            said.removeprefix(f"{DataError.__module__}.{DataError.__name__}: ")
        ) from None


def score(logits: Tensor, labels: Tensor, scored: list[int]) -> pd.DataFrame:
    """Rows of logits [B, C]: predictions over the scored classes, and over all (`_unmasked`)."""
    masked = torch.full_like(logits, -torch.inf)
    masked[:, scored] = logits[:, scored]
    probabilities, unmasked = masked.double().softmax(1), logits.double().softmax(1)
    columns = {
        "label": labels,
        "prediction": masked.argmax(1),
        "prediction_unmasked": logits.argmax(1),
        "confidence": probabilities.amax(1).float(),
        "confidence_unmasked": unmasked.amax(1).float(),
        "p_true": probabilities.gather(1, labels[:, None])[:, 0].float(),
    }
    rows = pd.DataFrame({name: column.numpy() for name, column in columns.items()})
    rows["correct"] = rows["prediction"] == rows["label"]
    rows["correct5"] = correct_within(masked, labels, 5).numpy()
    rows["correct_unmasked"] = rows["prediction_unmasked"] == rows["label"]
    rows["correct5_unmasked"] = correct_within(logits, labels, 5).numpy()
    return rows


def no_rows() -> pd.DataFrame:
    """A table of predictions without images."""
    rows = score(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), [0])
    rows.insert(0, "image_id", pd.Series([], dtype="str"))
    return rows
