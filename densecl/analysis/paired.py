"""One model on one set, as its evaluation left it, and what tells two of them apart."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.analysis.results import read_seeds
from densecl.analysis.statistics import Estimate, Outcomes, paired_difference
from densecl.artifacts import Evaluation, NoEvaluation, read_cell
from densecl.config.params import Report


@dataclass(frozen=True)
class Side:
    """Rows by image_id, with the `wnid` of each label: the label is an index into the model's own
    class list.
    """

    rows: pd.DataFrame
    record: Evaluation

    @property
    def correct(self) -> Outcomes:
        """[images, 1] 1 where right, 0 where wrong."""
        return self.rows[["correct"]].to_numpy(float)

    def on(self, images: pd.Index) -> Side:
        """The same on some images, in their order."""
        return replace(self, rows=self.rows.loc[images])


@dataclass(frozen=True)
class Nothing:
    """Why there are no rows."""

    reason: str
    unscorable: (
        bool  # the evaluation itself says that the set cannot be scored: no failure of the run
    )


def read_side(root: Path, dataset: str, mode: str, seed: int) -> Side | Nothing:
    """What the evaluation of a model on a set left under `root`."""
    cell = read_seeds(root, dataset, mode, [seed])
    if cell.missing:
        reason = cell.missing[0].removeprefix(f"seed {seed}: ")
        return Nothing(reason, _unscorable(root / paths.evaluation(dataset, mode, seed)))
    config = paths.model(mode, seed) / "config.json"
    try:
        classes = json.loads((root / config).read_text(encoding="utf-8"))["classes"]
        wnids = [classes[label] for label in cell.rows[seed]["label"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Nothing(f"the class list in {config} cannot be used ({error})", False)
    return Side(cell.rows[seed].assign(wnid=wnids), cell.records[seed])


def _unscorable(record: Path) -> bool:
    try:
        return isinstance(read_cell(record), NoEvaluation)
    except (OSError, ValueError):
        return False


def difference(first: Outcomes, second: Outcomes, values: Report, seed: int) -> Estimate:
    """Difference first - second [images, 1] with the paired bootstrap's interval, widened to Bonett
    & Price's (2012).

    Where a handful of images tells two models apart, redrawing that handful gives too short an
    interval, which may even end at 0. The adjusted Wald interval (an image more for either model)
    keeps its coverage there; with many images the two agree (benchmarks/gate.py).
    """
    from scipy.stats import norm

    found = paired_difference(first, second, values.confidence, values.bootstrap_samples, seed)
    n = len(first) + 2
    gained, lost = (
        float((one > other).sum() + 1) / n for one, other in ((first, second), (second, first))
    )
    half = float(norm.ppf((1 + values.confidence) / 2)) * math.sqrt(
        (gained + lost - (gained - lost) ** 2) / n
    )
    low, high = min(found.low, gained - lost - half), max(found.high, gained - lost + half)
    return replace(found, low=max(low, -1.0), high=min(high, 1.0))
