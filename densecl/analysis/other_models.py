"""Models of `evaluate.models`: their scores, and their differences to every mode on the same
images.

They are outside the families of tests: each is one model, whoever trained it and however.
"""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.analysis import statistics
from densecl.analysis.probe_results import (
    list_measure_places,
    read_probe_rows,
    select_known,
    select_measure,
)
from densecl.analysis.results import (
    PROBE_METRIC,
    READ_ERRORS,
    Comparison,
    MetricRow,
    UnpairedImagesError,
    build_outcome_matrix,
    describe_incompleteness,
    describe_read_error,
    read_predictions,
)
from densecl.analysis.statistics import Outcomes
from densecl.artifacts import MissingEvaluation, ProbeEvaluation, read_evaluation

FramesByMode = dict[str, dict[int, pd.DataFrame]]  # by seed


class NotMeasuredError(ValueError):
    """The evaluation itself says why there is no number."""


def add_other_models(comparison: Comparison, root: Path) -> None:
    """Score and differences of every model on every dataset and measure, or the reason for none."""
    for model in comparison.plan.models:
        for dataset in comparison.plan.datasets:
            frames: FramesByMode = {
                mode: comparison.cells[dataset, mode].rows for mode in comparison.plan.modes
            }
            try:
                rows, note = _read_dataset(root, dataset, model)
            except READ_ERRORS as error:
                file = paths.evaluation_file(dataset, model, None)
                reason = _describe_error(error, file, root)
                _add_missing(comparison, dataset, model, "top1", reason)
                continue
            empty = MetricRow(dataset, "", model, "top1", None, note=note)
            _add_model(comparison, empty, rows, "correct", frames)
        _add_probes(comparison, root, model)


def _add_probes(comparison: Comparison, root: Path, model: str) -> None:
    read = {probe: _read_probe(root, probe, model) for probe in comparison.plan.probes}
    for place, (probe, measure) in list_measure_places(comparison).items():
        record, rows = read[probe]
        if measure not in record.measures:
            reason = record.reason or record.missing.get(measure, "not measured")
            _add_missing(comparison, place, model, PROBE_METRIC, reason)
            continue
        frames: FramesByMode = {
            mode: select_measure(comparison.probes[probe, mode], measure)
            for mode in comparison.plan.modes
        }
        empty = MetricRow(place, "", model, PROBE_METRIC, None)
        _add_model(comparison, empty, select_known(rows, measure), measure, frames)


def _read_dataset(root: Path, dataset: str, model: str) -> tuple[pd.DataFrame, str]:
    """Predictions by image, and which images were left out; ValueError with the
    reason if it was not scored.
    """
    record = read_evaluation(root / paths.evaluation_file(dataset, model, None))
    if isinstance(record, MissingEvaluation):
        raise NotMeasuredError(record.reason)
    path = root / paths.predictions_file(dataset, model, None)
    rows = read_predictions(path, dataset, record.top1)
    return rows, "; ".join(describe_incompleteness(record))


def _read_probe(root: Path, probe: str, model: str) -> tuple[ProbeEvaluation, pd.DataFrame]:
    """What the probe left, and its rows by image; without any, `reason` says why."""
    file = paths.probe_file(probe, model, None)
    try:
        record = ProbeEvaluation.model_validate_json((root / file).read_text(encoding="utf-8"))
        if not record.measures:
            return record, pd.DataFrame()
        return record, read_probe_rows(root / paths.probe_rows_file(probe, model, None), record)
    except READ_ERRORS as error:
        reason = describe_read_error(error, file, root)
    record = ProbeEvaluation(probe=probe, mode=model, seed=None, measures={}, reason=reason)
    return record, pd.DataFrame()


def _describe_error(error: Exception, file: Path, root: Path) -> str:
    is_stated = isinstance(error, NotMeasuredError)
    return str(error) if is_stated else describe_read_error(error, file, root)


def _add_missing(comparison: Comparison, place: str, model: str, metric: str, note: str) -> None:
    """Its score and its differences to every mode are missing for the same reason."""
    for name in (metric, *(f"difference_to_{mode}" for mode in comparison.plan.modes)):
        comparison.add_row(MetricRow(place, "", model, name, None, note=note))


def _add_model(
    comparison: Comparison,
    empty: MetricRow,
    rows: pd.DataFrame,
    column: str,
    frames: FramesByMode,
) -> None:
    """`column` of `rows` is the outcome; `frames` are those of each mode by seed."""
    confidence = comparison.plan.values.confidence
    values, sources = rows[[column]].to_numpy(float), rows["source"].to_numpy(object)
    estimate = statistics.estimate_mean(values, confidence, sources)
    comparison.add_estimate(empty, estimate, len(values), ())
    for mode, by_seed in frames.items():
        row = MetricRow(empty.dataset, "", empty.mode, f"difference_to_{mode}", None)
        try:
            outcomes = _pair_outcomes(by_seed, column, rows.index, (empty.mode, mode))
        except UnpairedImagesError as error:
            note = "; ".join(filter(None, (str(error), empty.note)))
            comparison.add_row(replace(row, note=note))
            continue
        gaps = values - outcomes
        sampled = statistics.sample_difference([gaps], [sources])
        interval = sampled.compute_interval(confidence)
        comparison.add_estimate(row, interval, len(gaps), sorted(by_seed))


def _pair_outcomes(
    by_seed: dict[int, pd.DataFrame], column: str, images: pd.Index, names: tuple[str, str]
) -> Outcomes:
    """[images, seeds] of a mode; raises UnpairedImagesError unless all its seeds have `images`."""
    seeds = sorted(by_seed)
    if not seeds or not by_seed[seeds[0]].index.equals(images):
        raise UnpairedImagesError(f"{names[0]} and {names[1]} were not scored on the same images")
    return build_outcome_matrix(by_seed, column, seeds)
