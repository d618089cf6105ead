"""What the evaluations of every planned cell left, and the long table that is filled from it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from densecl import paths
from densecl.analysis.statistics import Outcomes
from densecl.artifacts import Evaluation, MissingEvaluation, ReportPlan, read_evaluation
from densecl.config.params import Mode
from densecl.evaluation.protocols import PROTOCOLS, EvaluationProtocol
from densecl.seeding import derive_seed

BASELINE: Mode = "none"
READ_ERRORS = (
    ValueError,
    KeyError,
    OSError,
    TypeError,
    NotImplementedError,
)  # what reading damaged files raises
OUTCOME_COLUMNS = {"top1": "correct", "top5": "correct5", "top1_unmasked": "correct_unmasked"}


@dataclass(frozen=True)
class MetricRow:
    """One number of the report; `value` None where there is none, and then `note` says why."""

    dataset: str
    control: str
    mode: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    images: int | None = None
    seeds: str = ""
    note: str = ""


@dataclass
class SeedResults:
    """What was found of one set and mode, by seed; frames are indexed by image_id."""

    records: dict[int, Evaluation] = field(default_factory=dict)
    rows: dict[int, pd.DataFrame] = field(default_factory=dict)
    controls: dict[int, pd.DataFrame] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def note(self) -> str:
        """What to know beside every number: seeds that are missing, and what of the set is."""
        notes = dict.fromkeys(
            text for record in self.records.values() for text in describe_incompleteness(record)
        )
        return "; ".join([*self.missing, *notes])


def describe_incompleteness(record: Evaluation) -> list[str]:
    """What of the set was not scored, in words."""
    notes = [f"incomplete: {record.shortfall}"] if record.shortfall else []
    return notes + (
        [f"{record.outside} images of classes outside its list left out"] if record.outside else []
    )


class MissingCellError(ValueError):
    """A cell that the pipeline left out; the message says why."""


class UnpairedImagesError(ValueError):
    """Two tables that do not hold the same images cannot be compared image by image."""


@dataclass
class Comparison:
    plan: ReportPlan
    cells: dict[tuple[str, str], SeedResults]
    rows: dict[tuple[str, str, str], MetricRow] = field(default_factory=dict)

    @property
    def shifted_sets(self) -> tuple[str, ...]:
        return tuple(name for name in self.plan.datasets if self.get_protocol(name).control)

    @property
    def complete_sets(self) -> tuple[str, ...]:
        """Shifted sets of which every mode has every seed: the mean is over these."""
        return tuple(
            s
            for s in self.shifted_sets
            if not any(self.cells[s, m].missing for m in self.plan.modes)
        )

    @property
    def pairs(self) -> list[tuple[Mode, Mode]]:
        """Compared modes, each pair's simpler one second; differences to the baseline come
        first.
        """
        order: list[Mode] = [m for m in ("dense", "global", "none") if m in self.plan.modes]
        return sorted(itertools.combinations(order, 2), key=lambda pair: pair[1] != BASELINE)

    def get_protocol(self, dataset: str) -> EvaluationProtocol:
        return PROTOCOLS[self.plan.protocols[dataset]]

    def get_row(self, dataset: str, mode: str, metric: str) -> MetricRow | None:
        return self.rows.get((dataset, mode, metric))

    def add_row(self, row: MetricRow) -> None:
        self.rows[row.dataset, row.mode, row.metric] = row


def read_seed_results(root: Path, dataset: str, mode: str, seeds: Sequence[int]) -> SeedResults:
    cell = SeedResults()
    for seed in seeds:
        try:
            record, rows, control = _read_seed(root, dataset, mode, seed)
        except FileNotFoundError as error:
            cell.missing.append(f"seed {seed}: no file {_make_relative(error.filename, root)}")
            continue
        except MissingCellError as error:
            cell.missing.append(f"seed {seed}: {error}")
            continue
        except READ_ERRORS as error:
            message = " ".join(str(error).split())[:200]
            cell.missing.append(
                f"seed {seed}: {paths.evaluation_file(dataset, mode, seed)} cannot be used: "
                f"{message}"
            )
            continue
        cell.records[seed], cell.rows[seed] = record, rows
        if control is not None:
            cell.controls[seed] = control
    return cell


def _make_relative(name: object, root: Path) -> Path:
    path = Path(str(name))
    return path.relative_to(root) if path.is_relative_to(root) else path


def _read_seed(
    root: Path, dataset: str, mode: str, seed: int
) -> tuple[Evaluation, pd.DataFrame, pd.DataFrame | None]:
    record = read_evaluation(root / paths.evaluation_file(dataset, mode, seed))
    if isinstance(record, MissingEvaluation):
        raise MissingCellError(record.reason)
    rows = _read_predictions(root / paths.predictions_file(dataset, mode, seed))
    control = _read_predictions(root / record.control.predictions) if record.control else None
    _check_top1(record.top1, rows, "its own")
    if record.control and control is not None:
        _check_top1(record.control.top1, control, "its control's")
    return record, rows, control


def _read_predictions(path: Path) -> pd.DataFrame:
    columns = ["image_id", "label", "prediction", "confidence", "p_true", *OUTCOME_COLUMNS.values()]
    return validate_predictions(pd.read_parquet(path, columns=columns), path.name)


def validate_predictions(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Indexed and sorted by image_id; ValueError where an image is there twice or an answer is not
    judged by its label.
    """
    rows = rows.set_index("image_id").sort_index()
    if rows.empty or rows.index.has_duplicates:
        raise ValueError(f"{name} holds {'no rows' if rows.empty else 'an image twice'}")
    expected = (rows["prediction"] == rows["label"]).to_numpy(float)
    if mismatches := int((rows["correct"].to_numpy(float) != expected).sum()):
        raise ValueError(
            f"{name}: of {mismatches} images `correct` is not what label and prediction say; "
            f"evaluate "
            f"the cell again"
        )
    return rows


def _check_top1(top1: float, rows: pd.DataFrame, source: str) -> None:
    recomputed = float(rows["correct"].mean())
    if not abs(recomputed - top1) <= 1e-6:  # nor NaN
        raise ValueError(
            f"it says top1 {top1:.6f} but {source} predictions give {recomputed:.6f}; evaluate the "
            f"cell again"
        )


def build_outcome_matrix(
    frames: dict[int, pd.DataFrame], column: str, seeds: Sequence[int]
) -> Outcomes:
    """[images, seeds] in the order of image_id; raises Unpaired unless all seeds hold the same
    images.
    """
    index = frames[seeds[0]].index
    if not all(frames[seed].index.equals(index) for seed in seeds):
        raise UnpairedImagesError("the seeds were evaluated on different images")
    return np.column_stack([frames[seed][column].to_numpy(float) for seed in seeds])


def compute_report_seed(*words: str) -> int:
    return derive_seed(0, "report", *words)
