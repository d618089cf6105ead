"""Predictions of one model that are kept in the cell cache, so that no image is run twice.

The key of an entry is the sha256 of all that decides its content: the model, the images and their
labels, the preprocessing, the scored classes, the batch size, and the code.
"""

import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from densecl.artifacts import Preprocessing
from densecl.evaluation.cell_cache import CellCache
from densecl.evaluation.group_scores import ScoredGroups
from densecl.evaluation.predict import build_predictions, iter_logits
from densecl.evaluation.scoring import select_scored
from densecl.network.vit import Backbone
from densecl.runtime.source_hash import hash_sources

# Code and packages that decide predictions, given the images, labels and preprocessing in the key.
# Metrics are computed from predictions each time, so their code is none of it.
PREDICTION_CODE = (
    "datasets/storage",
    "evaluation/cached_predict.py",
    "evaluation/group_scores.py",
    "evaluation/other_models.py",
    "evaluation/predict.py",
    "evaluation/scoring.py",
    "metrics.py",
    "network",
)
PREDICTION_PACKAGES = ("torch", "torchvision", "timm", "pillow")
CHUNK = 4096  # images scored at once from kept logits: 33 MB of float64 at 1000 classes


@dataclass(frozen=True)
class LabelledImages:
    """The usable images of a dataset whose classes, or groups of classes, the model knows."""

    name: str  # of the dataset
    frame: pd.DataFrame  # rows of the manifest; `label` is the model's index, or the group's
    root: Path
    preprocessing: Preprocessing
    shared: bool  # scored under the masks of several datasets: its logits are kept
    usable: int = 0  # images of all classes, known to the model or not
    excluded: int = 0  # by validation
    resizing: str = ""  # why the protocol's as-is was not followed


class CachedPredictor:
    """One model and the cell cache; `images_run` counts the images that went through the model."""

    def __init__(
        self, model: Backbone, folder: Path, batch_size: int, cache: CellCache, classes: list[str]
    ) -> None:
        """`folder` holds the files of `model`, and `classes` are those of its outputs."""
        self.model, self.batch_size, self.cache = model, batch_size, cache
        self.images_run = 0
        self._logits: dict[str, Tensor] = {}  # of shared images, by key
        self.identity = {
            "model": [hash_file(folder / name) for name in ("model.safetensors", "config.json")],
            "classes": classes,
            "batch_size": batch_size,
            "code": hash_sources(PREDICTION_CODE),
            "packages": [version(name) for name in PREDICTION_PACKAGES],
        }

    def predict(
        self,
        images: LabelledImages,
        scored_indices: list[int],
        groups: ScoredGroups | None = None,
    ) -> tuple[pd.DataFrame, bool]:
        """Predictions on the images of the scored labels, and whether the cache had them.

        With `groups`, labels are groups, those of `images` too. DataError if there is no such
        image, or if one cannot be read.
        """
        frame = select_scored(images.name, images.frame, scored_indices)
        key = self._build_key(
            images.preprocessing, frame[["image_id", "label", "sha256"]], scored_indices, groups
        )
        if (content := self.cache.read(key)) is not None:
            return pd.read_parquet(io.BytesIO(content)), True
        logits = self._iter_logits(images, scored_indices)
        rows = build_predictions(frame, logits, scored_indices, groups)
        self.cache.write(key, rows.to_parquet(index=False))
        return rows, False

    def _iter_logits(self, images: LabelledImages, scored_indices: list[int]) -> Iterator[Tensor]:
        if images.shared:
            selected = np.flatnonzero(images.frame["label"].isin(scored_indices))
            yield from torch.split(self._get_shared_logits(images)[selected], CHUNK)
        else:
            frame = select_scored(images.name, images.frame, scored_indices)
            yield from self._run_model(images, frame)

    def _get_shared_logits(self, images: LabelledImages) -> Tensor:
        """Logits [B, C] of all images of a dataset; kept in memory too."""
        key = self._build_key(images.preprocessing, images.frame[["sha256"]], None)
        if key not in self._logits:
            if (content := self.cache.read(key)) is not None:
                logits = torch.from_numpy(np.load(io.BytesIO(content), allow_pickle=False))
            else:
                logits = torch.cat(list(self._run_model(images, images.frame)))
                buffer = io.BytesIO()
                np.save(buffer, logits.numpy(), allow_pickle=False)
                self.cache.write(key, buffer.getvalue())
            self._logits[key] = logits
        return self._logits[key]

    def _run_model(self, images: LabelledImages, frame: pd.DataFrame) -> Iterator[Tensor]:
        for logits in iter_logits(
            self.model, frame, images.root, images.preprocessing, self.batch_size
        ):
            self.images_run += len(logits)
            yield logits

    def _build_key(
        self,
        preprocessing: Preprocessing,
        frame: pd.DataFrame,
        scored_indices: list[int] | None,
        groups: ScoredGroups | None = None,
    ) -> str:
        """`scored_indices` None: the key of logits, which no mask touches."""
        values = self.identity | {
            "preprocessing": preprocessing.model_dump(mode="json"),
            "images": hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest(),
            "scored": scored_indices,
        }
        if groups:
            values["groups"] = [groups.groups.model_dump(mode="json"), groups.classes]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
