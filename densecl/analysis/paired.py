"""Predictions of one model on one dataset, and the paired difference of two models."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd

from densecl import paths
from densecl.analysis.results import read_seed_results
from densecl.analysis.sampled_value import Estimate
from densecl.analysis.statistics import Outcomes, Sources, sample_difference
from densecl.artifacts import Evaluation


@dataclass(frozen=True)
class ModelPredictions:
    """Rows by image_id with the `wnid` of each label, or its group; a label is an index into the
    model's own class list, or the dataset's groups.
    """

    rows: pd.DataFrame
    record: Evaluation

    @property
    def correct(self) -> Outcomes:
        """[images, 1]: 1 if the prediction is correct, else 0."""
        return self.rows[["correct"]].to_numpy(float)

    @property
    def sources(self) -> Sources:
        """[images]: the photograph that each was made from."""
        return self.rows["source"].to_numpy(object)

    def select_images(self, images: pd.Index) -> Self:
        """The predictions on some images, in the given order."""
        return replace(self, rows=self.rows.loc[images])


@dataclass(frozen=True)
class MissingPredictions:
    """The reason why there are no predictions."""

    reason: str
    is_unscorable: bool  # the evaluation states that the dataset cannot be scored


def read_model_predictions(
    root: Path, dataset: str, mode: str, seed: int
) -> ModelPredictions | MissingPredictions:
    """Read the predictions of a model on a dataset under `root`."""
    results = read_seed_results(root, dataset, mode, [seed])
    if results.missing:
        reason = results.missing[0].removeprefix(f"seed {seed}: ")
        return MissingPredictions(reason, bool(results.unscorable))
    config = paths.model_folder(mode, seed) / "config.json"
    try:
        classes = json.loads((root / config).read_text(encoding="utf-8"))["classes"]
        groups = {label: name for name, label in results.records[seed].groups.items()}
        names = groups or dict(enumerate(classes))
        wnids = [names[label] for label in results.rows[seed]["label"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return MissingPredictions(f"the class list in {config} cannot be used ({error})", False)
    return ModelPredictions(results.rows[seed].assign(wnid=wnids), results.records[seed])


def estimate_difference(
    first: Outcomes, second: Outcomes, confidence: float, sources: Sources | None = None
) -> Estimate:
    """Difference first - second of two models on the same images, each [images, 1]."""
    return sample_difference([first - second], [sources]).compute_interval(confidence)
