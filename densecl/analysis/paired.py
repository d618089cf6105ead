"""Predictions of one model on one dataset, and the paired difference of two models."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pandas as pd

from densecl import paths
from densecl.analysis.results import read_seed_results
from densecl.analysis.statistics import Estimate, Outcomes, estimate_paired_difference
from densecl.artifacts import Evaluation
from densecl.config.params import ReportParams


@dataclass(frozen=True)
class ModelPredictions:
    """Rows by image_id with the `wnid` of each label; a label is an index into the model's own
    class list.
    """

    rows: pd.DataFrame
    record: Evaluation

    @property
    def correct(self) -> Outcomes:
        """[images, 1]: 1 if the prediction is correct, else 0."""
        return self.rows[["correct"]].to_numpy(float)

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
        wnids = [classes[label] for label in results.rows[seed]["label"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return MissingPredictions(f"the class list in {config} cannot be used ({error})", False)
    return ModelPredictions(results.rows[seed].assign(wnid=wnids), results.records[seed])


def estimate_difference(
    first: Outcomes, second: Outcomes, report_params: ReportParams, seed: int
) -> Estimate:
    """Difference first - second of [images, 1] with a paired bootstrap interval, widened to that of
    Bonett & Price (2012).

    If the models differ on only a few images, the bootstrap interval is too short and may even end
    at 0. The adjusted Wald interval (one more image for either model) keeps its coverage; with many
    discordant images the two agree (benchmarks/gate.py).
    """
    from scipy.stats import norm

    estimate = estimate_paired_difference(
        first, second, report_params.confidence, report_params.bootstrap_samples, seed
    )
    n = len(first) + 2
    gained, lost = (
        float((one > other).sum() + 1) / n for one, other in ((first, second), (second, first))
    )
    half_width = float(norm.ppf((1 + report_params.confidence) / 2)) * math.sqrt(
        (gained + lost - (gained - lost) ** 2) / n
    )
    low = min(estimate.low, gained - lost - half_width)
    high = max(estimate.high, gained - lost + half_width)
    return replace(estimate, low=max(low, -1.0), high=min(high, 1.0))
