"""A model on a set: one row an image, then the cell's figures. Letters: B images, C classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from densecl.datasets.images import decode
from densecl.errors import DataError
from densecl.hardware import device, workers
from densecl.metrics import correct_within
from densecl.network.preprocessing import evaluation_transform
from densecl.network.vit import Backbone
from densecl.records import Preprocessing
from densecl.robustness.calibration import expected_calibration_error


class Images(Dataset[tuple[Tensor, int]]):
    """Preprocessed images in the manifest's order, each with its row number."""

    def __init__(
        self, paths: list[Path], transform: Callable[[Image.Image], Tensor], size: tuple[int, int] | None
    ) -> None:
        self.paths, self.transform, self.size = paths, transform, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        image = decode(self.paths[row])
        if self.size and image.size != self.size:
            raise DataError(
                f"{self.paths[row]}: found {image.width} x {image.height} px, expected {self.size[0]} x {self.size[1]}: "
                "the set is evaluated as-is; set evaluate.preprocess to model to resize it"
            )
        return self.transform(image), row


def image_loader(paths: list[Path], values: Preprocessing, batch_size: int) -> DataLoader[tuple[Tensor, int]]:
    """Batches of preprocessed images [B, 3, H, W] in order, with their row numbers [B]."""
    size = (values.input_size[2], values.input_size[1]) if values.rule == "as-is" else None
    return DataLoader(
        Images(paths, evaluation_transform(values), size), batch_size=batch_size,
        num_workers=workers() if len(paths) > batch_size else 0,
        generator=torch.Generator(),  # else starting workers would move the global generator of a training
    )  # fmt: skip


def predict(
    model: Backbone, frame: pd.DataFrame, root: Path, values: Preprocessing, scored: list[int], batch_size: int,
) -> pd.DataFrame:  # fmt: skip
    """One row an image of the manifest `frame`; `scored` are the class indices whose logits are not masked."""
    where = device()
    model = model.to(where).eval()
    loader = image_loader([root / path for path in frame["path"]], values, batch_size)
    labels = torch.tensor(frame["label"].to_numpy(dtype=np.int64, copy=True))
    parts = []
    for batch, rows in loader:
        with torch.inference_mode():
            logits = model(batch.to(where)).float().cpu()
        parts.append(score(logits, labels[rows], scored))
    rows = pd.concat(parts, ignore_index=True)
    rows.insert(0, "image_id", frame["image_id"].to_numpy())
    return rows


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


def figures(rows: pd.DataFrame) -> dict[str, float]:
    """Every figure of a cell, recomputed from its rows; fractions in [0, 1], nll in nats."""
    tiny = float(np.finfo(np.float32).tiny)
    confidence = rows["confidence"].to_numpy(dtype=np.float64)
    return {
        "top1": float(rows["correct"].mean()),
        "top5": float(rows["correct5"].mean()),
        "top1_unmasked": float(rows["correct_unmasked"].mean()),
        "top5_unmasked": float(rows["correct5_unmasked"].mean()),
        "macro_top1": float(rows.groupby("label")["correct"].mean().mean()),
        "nll": float(-np.log(rows["p_true"].astype("float64").clip(lower=tiny)).mean()),
        "ece": expected_calibration_error(confidence, rows["correct"].to_numpy()),
        "mean_confidence": float(confidence.mean()),
    }
