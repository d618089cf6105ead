"""Evaluations and predictions of every planned cell -> the long table that all numbers of the report are read from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from densecl import layout
from densecl.params import CONTROL_SET, Mode
from densecl.records import Evaluation, ReportPlan, read_json
from densecl.reporting import statistics
from densecl.reporting.statistics import Estimate, Outcomes, Part
from densecl.seeding import derive

BASELINE: Mode = "none"
MEAN = "(shifted mean)"  # brackets cannot occur in the name of a set
OUTCOMES = {"top1": "correct", "top5": "correct5", "top1_unmasked": "correct_unmasked"}
RECORDED = ("top5_unmasked", "macro_top1", "nll", "ece", "mean_confidence")
COLUMNS = ("dataset", "control", "mode", "metric", "value", "low", "high", "images", "seeds", "note")


@dataclass(frozen=True)
class Row:
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
class Cell:
    """What was found of one set and mode, by seed; frames are indexed by image_id."""

    records: dict[int, Evaluation] = field(default_factory=dict)
    rows: dict[int, pd.DataFrame] = field(default_factory=dict)
    controls: dict[int, pd.DataFrame] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def note(self) -> str:
        return "; ".join(self.missing)


class Unpaired(ValueError):
    """Two tables that do not hold the same images cannot be compared image by image."""


@dataclass
class Comparison:
    plan: ReportPlan
    cells: dict[tuple[str, str], Cell]
    rows: dict[tuple[str, str, str], Row] = field(default_factory=dict)

    @property
    def shifted(self) -> tuple[str, ...]:
        return tuple(name for name in self.plan.datasets if name != CONTROL_SET)

    @property
    def whole(self) -> tuple[str, ...]:
        """Shifted sets of which every mode has every seed: the mean is over these."""
        return tuple(s for s in self.shifted if not any(self.cells[s, m].missing for m in self.plan.modes))

    @property
    def pairs(self) -> list[tuple[Mode, Mode]]:
        """Compared modes, each pair's simpler one second; differences to the baseline come first."""
        order: list[Mode] = [m for m in ("dense", "global", "none") if m in self.plan.modes]
        return sorted(itertools.combinations(order, 2), key=lambda pair: pair[1] != BASELINE)

    def get(self, dataset: str, mode: str, metric: str) -> Row | None:
        return self.rows.get((dataset, mode, metric))

    def add(self, row: Row) -> None:
        self.rows[row.dataset, row.mode, row.metric] = row


def compare(plan: ReportPlan, root: Path) -> Comparison:
    """Every planned cell, present or not, with its intervals, differences and tests."""
    cells: dict[tuple[str, str], Cell] = {
        (s, m): _read_cell(root, s, m, plan.seeds) for s in plan.datasets for m in plan.modes
    }
    found = Comparison(plan, cells)
    for dataset, mode in cells:
        _add_cell(found, dataset, mode)
    for mode in plan.modes:
        _add_mean(found, mode)
    for first, second in found.pairs:
        _add_differences(found, first, second)
    if BASELINE not in plan.modes:
        for dataset, mode in cells:
            found.add(
                Row(dataset, "", mode, f"difference_to_{BASELINE}", None, note=f"mode {BASELINE} is not in modes")
            )
    return found


def table(found: Comparison) -> pd.DataFrame:
    """The long table of `reports/comparison.csv`."""
    rows = [[getattr(row, name) for name in COLUMNS] for row in found.rows.values()]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"images": "Int64"})


def _read_cell(root: Path, dataset: str, mode: str, seeds: Sequence[int]) -> Cell:
    cell = Cell()
    for seed in seeds:
        try:
            record, rows, control = _read_seed(root, dataset, mode, seed)
        except FileNotFoundError as error:
            cell.missing.append(f"seed {seed}: no file {_relative(error.filename, root)}")
            continue
        except (ValueError, KeyError, OSError) as error:
            text = " ".join(str(error).split())[:200]
            cell.missing.append(f"seed {seed}: {layout.evaluation(dataset, mode, seed)} cannot be used: {text}")
            continue
        cell.records[seed], cell.rows[seed] = record, rows
        if control is not None:
            cell.controls[seed] = control
    return cell


def _relative(name: object, root: Path) -> Path:
    path = Path(str(name))
    return path.relative_to(root) if path.is_relative_to(root) else path


def _read_seed(root: Path, dataset: str, mode: str, seed: int) -> tuple[Evaluation, pd.DataFrame, pd.DataFrame | None]:
    record = read_json(Evaluation, root / layout.evaluation(dataset, mode, seed))
    rows = _read_rows(root / layout.predictions(dataset, mode, seed))
    control = _read_rows(root / record.control.predictions) if record.control else None
    _same(record.top1, rows, "its own")
    if record.control and control is not None:
        _same(record.control.top1, control, "its control's")
    return record, rows, control


def _read_rows(path: Path) -> pd.DataFrame:
    rows = pd.read_parquet(path, columns=["image_id", *OUTCOMES.values()]).set_index("image_id").sort_index()
    if rows.empty or rows.index.has_duplicates:
        raise ValueError(f"{path.name} holds {'no rows' if rows.empty else 'an image twice'}")
    return rows


def _same(top1: float, rows: pd.DataFrame, whose: str) -> None:
    counted = float(rows["correct"].mean())
    if abs(counted - top1) > 1e-6:
        raise ValueError(f"it says top1 {top1:.6f} but {whose} predictions give {counted:.6f}; evaluate the cell again")


def outcomes(frames: dict[int, pd.DataFrame], column: str, seeds: Sequence[int]) -> Outcomes:
    """[images, seeds] in the order of image_id; raises Unpaired unless all seeds hold the same images."""
    index = frames[seeds[0]].index
    if not all(frames[seed].index.equals(index) for seed in seeds):
        raise Unpaired("the seeds were evaluated on different images")
    return np.column_stack([frames[seed][column].to_numpy(float) for seed in seeds])


def _seed_of(*words: str) -> int:
    return derive(0, "report", *words)


def _add_cell(found: Comparison, dataset: str, mode: str) -> None:
    cell, values = found.cells[dataset, mode], found.plan.values
    seeds = sorted(cell.records)
    control = next((r.control.dataset for r in cell.records.values() if r.control), "")
    metrics = (*OUTCOMES, *RECORDED, *(("control_top1", "drop") if dataset != CONTROL_SET else ()))
    if not seeds:
        for metric in metrics:
            found.add(Row(dataset, control, mode, metric, None, note=cell.note))
        return
    named = " ".join(map(str, seeds))
    images = cell.records[seeds[0]].images

    def estimate(metric: str, frames: dict[int, pd.DataFrame], column: str) -> tuple[Estimate, Outcomes]:
        right = outcomes(frames, column, seeds)
        e = statistics.accuracy(right, values.confidence, values.bootstrap_samples, _seed_of(dataset, mode, metric))
        found.add(Row(dataset, control, mode, metric, e.value, e.low, e.high, right.shape[0], named, cell.note))
        return e, right

    try:
        top1, right = estimate("top1", cell.rows, "correct")
        for metric in ("top5", "top1_unmasked"):
            estimate(metric, cell.rows, OUTCOMES[metric])
        if control:
            clean, clean_right = estimate("control_top1", cell.controls, "correct")
            drop = statistics.independent_difference(clean, top1)
            if len(seeds) > 1:
                parts = [Part(1.0, clean_right), Part(-1.0, right)]
                words = _seed_of(dataset, mode, "drop")
                drop = statistics.combined(parts, values.confidence, values.bootstrap_samples, words)
            found.add(Row(dataset, control, mode, "drop", drop.value, drop.low, drop.high, images, named, cell.note))
    except Unpaired as error:
        for metric in metrics:
            found.add(Row(dataset, control, mode, metric, None, note=str(error)))
    for metric in RECORDED:
        mean = float(np.mean([getattr(cell.records[seed], metric) for seed in seeds]))
        found.add(Row(dataset, control, mode, metric, mean, images=images, seeds=named, note=cell.note))


def _mean_note(found: Comparison) -> str:
    absent = [s for s in found.shifted if s not in found.whole]
    over = f"mean over {', '.join(found.whole)}" if found.whole else "no shifted set has every mode and seed"
    return over + (f"; left out, not complete: {', '.join(absent)}" if absent else "")


def _add_mean(found: Comparison, mode: str) -> None:
    note, values, sets = _mean_note(found), found.plan.values, found.whole
    if not sets:
        found.add(Row(MEAN, "", mode, "top1", None, note=note))
        return
    try:
        cells = [outcomes(found.cells[s, mode].rows, "correct", found.plan.seeds) for s in sets]
    except Unpaired as error:
        found.add(Row(MEAN, "", mode, "top1", None, note=str(error)))
        return
    parts = [Part(1 / len(sets), right) for right in cells]
    e = statistics.combined(parts, values.confidence, values.bootstrap_samples, _seed_of(MEAN, mode, "top1"))
    images = sum(right.shape[0] for right in cells)
    found.add(Row(MEAN, "", mode, "top1", e.value, e.low, e.high, images, " ".join(map(str, found.plan.seeds)), note))


def _add_differences(found: Comparison, first: Mode, second: Mode) -> None:
    """Differences on each set and on the mean of the shifted sets; p-values corrected over the sets."""
    metric, tested = f"difference_to_{second}", []
    for dataset in found.plan.datasets:
        row, p = _difference(found, dataset, first, second, metric)
        found.add(row)
        if p is not None:
            tested.append((row, p))
    for (row, p), holm in zip(tested, statistics.holm([p for _, p in tested]), strict=True):
        _add_p(found, row, p, holm)
    _add_mean_difference(found, first, second, metric)
    if (first, second) == found.pairs[-1]:
        _correct_means(found)


def _paired(found: Comparison, dataset: str, first: str, second: str) -> tuple[Outcomes, Outcomes, list[int]]:
    one, two = found.cells[dataset, first], found.cells[dataset, second]
    seeds = sorted(one.rows.keys() & two.rows.keys())
    if not seeds:
        raise Unpaired("; ".join(n for n in (one.note, two.note) if n) or "no seed in common")
    if not one.rows[seeds[0]].index.equals(two.rows[seeds[0]].index):
        raise Unpaired(f"{first} and {second} were evaluated on different images")
    return outcomes(one.rows, "correct", seeds), outcomes(two.rows, "correct", seeds), seeds


def _difference(found: Comparison, dataset: str, first: str, second: str, metric: str) -> tuple[Row, float | None]:
    values = found.plan.values
    try:
        one, two, seeds = _paired(found, dataset, first, second)
    except Unpaired as error:
        return Row(dataset, "", first, metric, None, note=str(error)), None
    words = _seed_of(dataset, first, metric)
    e = statistics.paired_difference(one, two, values.confidence, values.bootstrap_samples, words)
    note = "; ".join(n for n in (found.cells[dataset, m].note for m in (first, second)) if n)
    named = " ".join(map(str, seeds))
    return Row(dataset, "", first, metric, e.value, e.low, e.high, one.shape[0], named, note), e.p


def _add_p(found: Comparison, row: Row, p: float, holm: float) -> None:
    for suffix, value in (("p", p), ("p_holm", holm)):
        found.add(Row(row.dataset, "", row.mode, f"{row.metric}_{suffix}", value, images=row.images, seeds=row.seeds))


def _add_mean_difference(found: Comparison, first: str, second: str, metric: str) -> None:
    note, values, sets = _mean_note(found), found.plan.values, found.whole
    try:
        if not sets:
            raise Unpaired(note)
        pairs = [_paired(found, s, first, second) for s in sets]
    except Unpaired as error:
        found.add(Row(MEAN, "", first, metric, None, note=str(error)))
        return
    parts = [Part(1 / len(sets), one - two) for one, two, _ in pairs]
    e = statistics.combined(parts, values.confidence, values.bootstrap_samples, _seed_of(MEAN, first, metric))
    images, named = sum(one.shape[0] for one, _, _ in pairs), " ".join(map(str, found.plan.seeds))
    found.add(Row(MEAN, "", first, metric, e.value, e.low, e.high, images, named, note))
    found.add(Row(MEAN, "", first, f"{metric}_p", e.p, images=images, seeds=named))


def _correct_means(found: Comparison) -> None:
    """The pairs of modes are one family: the answer calls any of them."""
    rows = [r for a, b in found.pairs if (r := found.get(MEAN, a, f"difference_to_{b}_p")) and r.value is not None]
    for row, holm in zip(rows, statistics.holm([float(r.value or 0) for r in rows]), strict=True):
        found.add(Row(MEAN, "", row.mode, f"{row.metric}_holm", holm, images=row.images, seeds=row.seeds))


def called(found: Comparison, dataset: str, first: str, second: str) -> int:
    """+1 above, -1 below, 0 not told apart: the interval leaves 0 out and the corrected p is below the level."""
    row = found.get(dataset, first, f"difference_to_{second}")
    p = found.get(dataset, first, f"difference_to_{second}_p_holm")
    if row is None or p is None or row.value is None or row.low is None or row.high is None or p.value is None:
        return 0
    if p.value > 1 - found.plan.values.confidence or row.low <= 0 <= row.high:
        return 0
    return 1 if row.value > 0 else -1
