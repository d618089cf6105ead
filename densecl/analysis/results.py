"""Read the results of all planned cells, and define the rows of the comparison table."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from densecl import paths
from densecl.analysis.sampled_value import Estimate, SampledValue
from densecl.analysis.statistics import Outcomes, Sources
from densecl.artifacts import (
    Evaluation,
    MissingEvaluation,
    ProbeEvaluation,
    ReportPlan,
    read_evaluation,
)
from densecl.config.params import Mode
from densecl.cost.result import CostReport
from densecl.evaluation.protocols import PROTOCOLS, EvaluationProtocol
from densecl.evaluation.sources import find_sources
from densecl.seeding import derive_seed

SEED_REASON = re.compile(r"seed (\d+): (.*)", re.DOTALL)
BASELINE: Mode = "none"
SHIFTED_MEAN = "(shifted mean)"  # the name of a dataset has no brackets
PROBE_METRIC = "value"  # of a measure of a probe
READ_ERRORS = (
    ValueError,
    KeyError,
    OSError,
    TypeError,
    NotImplementedError,
)  # what reading damaged files raises
OUTCOME_COLUMNS = {"top1": "correct", "top5": "correct5", "top1_unmasked": "correct_unmasked"}
PREDICTION_COLUMNS = (
    *("image_id", "label", "prediction", "confidence", "p_true"),
    *OUTCOME_COLUMNS.values(),
)


@dataclass(frozen=True)
class MetricRow:
    """One number of the report; if `value` is None, `note` gives the reason."""

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


def merge_seeds(reasons: Iterable[str]) -> list[str]:
    """Reasons without repeats: `seed 0: x` and `seed 1: x` as `seeds 0, 1: x`."""
    merged: dict[tuple[str, bool], list[str]] = {}  # text, whether it is of seeds -> them
    for reason in reasons:
        found = SEED_REASON.fullmatch(reason)
        named = merged.setdefault((found[2], True) if found else (reason, False), [])
        if found and found[1] not in named:
            named.append(found[1])
    return [
        f"{'seed' if len(named) == 1 else 'seeds'} {', '.join(named)}: {text}" if named else text
        for (text, _), named in merged.items()
    ]


@dataclass
class SeedResults:
    """Results of one dataset and mode by seed; frames are indexed by image_id."""

    records: dict[int, Evaluation] = field(default_factory=dict)
    rows: dict[int, pd.DataFrame] = field(default_factory=dict)
    controls: dict[int, pd.DataFrame] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unscorable: list[int] = field(default_factory=list)  # seeds whose evaluation itself says so

    @property
    def note(self) -> str:
        """Text beside every number: missing seeds and unscored images."""
        notes = dict.fromkeys(
            text for record in self.records.values() for text in describe_incompleteness(record)
        )
        return "; ".join([*merge_seeds(self.missing), *notes])


@dataclass
class ProbeResults:
    """Results of one probe and mode by seed; frames are indexed by image_id."""

    records: dict[int, ProbeEvaluation] = field(default_factory=dict)
    rows: dict[int, pd.DataFrame] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def describe_incompleteness(record: Evaluation) -> list[str]:
    """Text on images of the dataset that were not scored, or not as its protocol prescribes."""
    notes = [record.resizing] if record.resizing else []
    notes += [f"incomplete: {record.shortfall}"] if record.shortfall else []
    return notes + (
        [f"{record.outside} images of classes outside its list left out"] if record.outside else []
    )


class UnpairedImagesError(ValueError):
    """Two tables with different images, which cannot be compared image by image."""


@dataclass
class Comparison:
    plan: ReportPlan
    cells: dict[tuple[str, str], SeedResults]
    rows: dict[tuple[str, str, str], MetricRow] = field(default_factory=dict)
    probes: dict[tuple[str, str], ProbeResults] = field(default_factory=dict)
    cost: CostReport | None = None
    # What the differences' intervals come from, by place, mode and the mode it is compared with.
    sampled: dict[tuple[str, str, str], SampledValue] = field(default_factory=dict)

    @property
    def shifted_sets(self) -> tuple[str, ...]:
        """Datasets with a control; changes of viewpoint are a claim of their own."""
        return tuple(
            name
            for name in self.plan.datasets
            if self.get_protocol(name).control and self.get_protocol(name).claim != "viewpoint"
        )

    @property
    def complete_sets(self) -> tuple[str, ...]:
        """Shifted datasets with all seeds of all modes but variants; the shifted mean uses
        these.
        """
        return tuple(
            s
            for s in self.shifted_sets
            if not any(self.cells[s, m].missing for m in self.plan.main_modes)
        )

    @property
    def mode_pairs(self) -> list[tuple[Mode, Mode]]:
        """Pairs of modes but variants, the simpler one second; differences from the baseline come
        first.
        """
        order: list[Mode] = [m for m in ("dense", "global", "none") if m in self.plan.modes]
        return sorted(itertools.combinations(order, 2), key=lambda pair: pair[1] != BASELINE)

    @property
    def variant_pairs(self) -> list[tuple[str, str]]:
        """Each variant with its base."""
        bases = self.plan.variants
        return [(mode, bases[mode]) for mode in self.plan.modes if mode in bases]

    def get_protocol(self, dataset: str) -> EvaluationProtocol:
        return PROTOCOLS[self.plan.protocols[dataset]]

    def get_row(self, dataset: str, mode: str, metric: str) -> MetricRow | None:
        return self.rows.get((dataset, mode, metric))

    def get_difference(self, dataset: str, mode: str, baseline: str) -> MetricRow | None:
        """The row of mode - baseline, if it has a value."""
        row = self.get_row(dataset, mode, f"difference_to_{baseline}")
        return row if row and row.value is not None else None

    def get_score(self, place: str, mode: str) -> MetricRow | None:
        """Top-1 of a dataset or of the shifted mean, the value of a probe's measure."""
        return self.get_row(place, mode, "top1") or self.get_row(place, mode, PROBE_METRIC)

    def add_row(self, row: MetricRow) -> None:
        self.rows[row.dataset, row.mode, row.metric] = row

    def add_estimate(
        self, row: MetricRow, estimate: Estimate, images: int, seeds: Sequence[int]
    ) -> MetricRow:
        """The row with its numbers; limits of NaN are none."""
        low, high = (None if np.isnan(x) else x for x in (estimate.low, estimate.high))
        filled = replace(
            row,
            value=estimate.value,
            low=low,
            high=high,
            images=images,
            seeds=" ".join(map(str, seeds)),
        )
        self.add_row(filled)
        return filled


def read_seed_results(root: Path, dataset: str, mode: str, seeds: Sequence[int]) -> SeedResults:
    cell = SeedResults()
    for seed in seeds:
        file = paths.evaluation_file(dataset, mode, seed)
        try:
            record = read_evaluation(root / file)
            if isinstance(record, MissingEvaluation):
                cell.missing.append(f"seed {seed}: {record.reason}")
                cell.unscorable.append(seed)
                continue
            file = paths.predictions_file(dataset, mode, seed)
            rows = read_predictions(root / file, dataset, record.top1)
            if control := record.control:
                file = Path(control.predictions)
                cell.controls[seed] = read_predictions(root / file, control.dataset, control.top1)
        except READ_ERRORS as error:
            cell.missing.append(f"seed {seed}: {describe_read_error(error, file, root)}")
        else:
            cell.records[seed], cell.rows[seed] = record, rows
            for frames in (cell.rows, cell.controls):
                if seed in frames:
                    share_names(frames[seed], next(iter(frames.values())))
    return cell


def share_names(rows: pd.DataFrame, first: pd.DataFrame) -> None:
    """Let the ids and sources of a seed be those of the first one, where they are equal: they take
    three quarters of the memory of a cell.
    """
    if rows.index.equals(first.index):
        rows.index = first.index
        if rows["source"].equals(first["source"]):
            rows["source"] = first["source"]


def describe_read_error(error: Exception, file: Path, root: Path) -> str:
    """Why a file under `root` gives no results."""
    if isinstance(error, FileNotFoundError):
        path = Path(error.filename or file)
        return f"no file {path.relative_to(root) if path.is_relative_to(root) else path}"
    return f"{file} cannot be used: {' '.join(str(error).split())[:200]}"


def read_predictions(
    path: Path, dataset: str, top1: float, columns: Sequence[str] = PREDICTION_COLUMNS
) -> pd.DataFrame:
    """Predictions indexed and sorted by image_id, with `source`; ValueError for a duplicate image,
    if `correct` contradicts the label, or if top-1 differs from the evaluation.
    """
    optional = {"source"}.intersection(pq.read_schema(path).names)
    rows = pd.read_parquet(path, columns=[*columns, *optional]).set_index("image_id").sort_index()
    if not optional:  # written by an earlier version
        rows["source"] = find_sources(dataset, rows.index).to_numpy()
    if rows.empty or rows.index.has_duplicates:
        raise ValueError(f"{path.name} holds {'no rows' if rows.empty else 'an image twice'}")
    expected = (rows["prediction"] == rows["label"]).to_numpy(float)
    if mismatches := int((rows["correct"].to_numpy(float) != expected).sum()):
        raise ValueError(
            f"{path.name}: of {mismatches} images `correct` is not what label and prediction say; "
            f"evaluate the cell again"
        )
    recomputed = float(rows["correct"].mean())
    if not abs(recomputed - top1) <= 1e-6:  # nor NaN
        raise ValueError(
            f"the evaluation says top1 {top1:.6f} but {path.name} gives {recomputed:.6f}; "
            f"evaluate the cell again"
        )
    return rows


def build_outcome_matrix(
    frames: dict[int, pd.DataFrame], column: str, seeds: Sequence[int]
) -> Outcomes:
    """[images, seeds] by image_id; raises UnpairedImagesError unless all seeds have the same
    images.
    """
    index = frames[seeds[0]].index
    if not all(frames[seed].index.equals(index) for seed in seeds):
        raise UnpairedImagesError("the seeds were evaluated on different images")
    return np.column_stack([frames[seed][column].to_numpy(float) for seed in seeds])


def compute_report_seed(*words: str) -> int:
    return derive_seed(0, "report", *words)


def get_sources(frames: dict[int, pd.DataFrame]) -> Sources:
    """The source of each image [n], in the order of the outcomes."""
    return next(iter(frames.values()))["source"].to_numpy(object)
