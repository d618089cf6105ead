"""One model on one set, as its evaluation left it: a side of a comparison."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from densecl import layout
from densecl.records import Evaluation, NoEvaluation, read_cell
from densecl.reporting.cells import read_seeds


@dataclass(frozen=True)
class Side:
    """Rows by image_id, with the `wnid` of each label: the label is an index into the model's own class list."""

    rows: pd.DataFrame
    record: Evaluation

    @property
    def correct(self) -> NDArray[np.float64]:
        """[images, 1]"""
        return self.rows[["correct"]].to_numpy(float)

    def on(self, images: pd.Index) -> Side:
        """The same on some images, in their order."""
        return replace(self, rows=self.rows.loc[images])


@dataclass(frozen=True)
class Nothing:
    """Why there are no rows."""

    reason: str
    unscorable: bool  # the evaluation itself says that the set cannot be scored: no failure of the run


def read_side(root: Path, dataset: str, mode: str, seed: int) -> Side | Nothing:
    """What the evaluation of a model on a set left under `root`."""
    cell = read_seeds(root, dataset, mode, [seed])
    if cell.missing:
        reason = cell.missing[0].removeprefix(f"seed {seed}: ")
        return Nothing(reason, _unscorable(root / layout.evaluation(dataset, mode, seed)))
    config = layout.model(mode, seed) / "config.json"
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
