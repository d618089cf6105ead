"""The comparison table's rows of one dataset and mode: its metrics, alone and relative to its
control.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd

from densecl.analysis import statistics
from densecl.analysis.results import (
    OUTCOME_COLUMNS,
    Comparison,
    MetricRow,
    UnpairedImagesError,
    build_outcome_matrix,
    get_sources,
    merge_seeds,
)
from densecl.analysis.sampled_value import Estimate
from densecl.analysis.statistics import Outcomes, Sources, WeightedOutcomes
from densecl.evaluation import effective_robustness
from densecl.evaluation.metrics import extract_renditions, find_texture_labels

RECORDED_METRICS = (
    "top5_unmasked",
    "macro_top1",
    "nll",
    "ece",
    "ece_equal_mass",
    "rms_calibration_error",
    "aurra",
    "mean_confidence",
)
FIT_REMARK = "r2 of the published fit"
CONTROL_METRICS = ("control_top1", "drop", "relative_accuracy", "effective_robustness")


def add_cell_metrics(comparison: Comparison, dataset: str, mode: str) -> None:
    cell, protocol = comparison.cells[dataset, mode], comparison.get_protocol(dataset)
    control_metrics = CONTROL_METRICS if protocol.control else ()
    shape_metrics = ("shape_bias",) if protocol.names == "cue-conflict" else ()
    further = (*control_metrics, *shape_metrics)
    if not cell.records:
        _add_missing(
            comparison, dataset, mode, (*OUTCOME_COLUMNS, *RECORDED_METRICS, *further), cell.note
        )
        return
    try:
        correct = _add_accuracies(comparison, dataset, mode)
        if control_metrics:
            _add_control_metrics(comparison, dataset, mode, correct)
        if protocol.names == "rendition":
            _add_renditions(comparison, dataset, mode, correct)
        if shape_metrics:
            _add_shape_bias(comparison, dataset, mode, correct)
    except UnpairedImagesError as error:
        note = "; ".join((str(error), *merge_seeds(cell.missing)))
        _add_missing(comparison, dataset, mode, (*OUTCOME_COLUMNS, *further), note)
    chances = [record.chance or 1 / record.classes for record in cell.records.values()]
    _add_row(comparison, dataset, mode, "chance", Estimate(float(np.mean(chances)), np.nan, np.nan))
    for metric in RECORDED_METRICS:
        mean = float(np.mean([getattr(record, metric) for record in cell.records.values()]))
        _add_row(comparison, dataset, mode, metric, Estimate(mean, np.nan, np.nan))


def _add_row(
    comparison: Comparison,
    dataset: str,
    mode: str,
    metric: str,
    estimate: Estimate,
    images: int | None = None,
    remark: str = "",
) -> None:
    """A row over all seeds that the cell has; limits of NaN are none."""
    cell, control = comparison.cells[dataset, mode], comparison.get_protocol(dataset).control
    count = next(iter(cell.records.values())).images if images is None else images
    note = "; ".join(filter(None, (cell.note, remark)))
    empty = MetricRow(dataset, control, mode, metric, None, note=note)
    comparison.add_estimate(empty, estimate, count, sorted(cell.records))


def _add_missing(
    comparison: Comparison, dataset: str, mode: str, metrics: Iterable[str], note: str
) -> None:
    control = comparison.get_protocol(dataset).control
    for metric in metrics:
        comparison.add_row(MetricRow(dataset, control, mode, metric, None, note=note))


def _add_accuracies(comparison: Comparison, dataset: str, mode: str) -> Outcomes:
    """The outcomes of top-1."""
    cell = comparison.cells[dataset, mode]
    outcomes = {
        metric: build_outcome_matrix(cell.rows, column, sorted(cell.records))
        for metric, column in OUTCOME_COLUMNS.items()
    }
    for metric, correct in outcomes.items():
        _add_accuracy(comparison, dataset, mode, metric, correct, get_sources(cell.rows))
    return outcomes["top1"]


def _add_accuracy(
    comparison: Comparison,
    dataset: str,
    mode: str,
    metric: str,
    correct: Outcomes,
    sources: Sources,
) -> Estimate:
    estimate = statistics.estimate_accuracy(correct, comparison.plan.values.confidence, sources)
    _add_row(comparison, dataset, mode, metric, estimate, len(correct))
    return estimate


def _add_control_metrics(
    comparison: Comparison, dataset: str, mode: str, correct: Outcomes
) -> None:
    """Add rows relative to the matched control, or the reason why there are none."""
    cell = comparison.cells[dataset, mode]
    records, seeds = list(cell.records.values()), sorted(cell.records)
    if sorted(cell.controls) != seeds:
        reasons = (r.left_out.get("control", "no control") for r in records if r.control is None)
        _add_missing(comparison, dataset, mode, CONTROL_METRICS, next(reasons))
        return
    control_correct = build_outcome_matrix(cell.controls, "correct", seeds)
    sources, control_sources = get_sources(cell.rows), get_sources(cell.controls)
    control_top1 = _add_accuracy(
        comparison, dataset, mode, "control_top1", control_correct, control_sources
    )
    confidence = comparison.plan.values.confidence
    if len(seeds) > 1 or set(sources) & set(control_sources):
        terms = [
            WeightedOutcomes(1.0, control_correct, control_sources),
            WeightedOutcomes(-1.0, correct, sources),
        ]
        drop = statistics.estimate_weighted_sum(terms, confidence)
    else:
        top1 = statistics.estimate_accuracy(correct, confidence, sources)
        drop = statistics.estimate_independent_difference(control_top1, top1)
    _add_row(comparison, dataset, mode, "drop", drop)
    control_mean = control_correct.mean()
    for metric in ("relative_accuracy", "effective_robustness"):
        values = [getattr(record, metric) for record in records]
        if None in values:
            reason = records[values.index(None)].left_out.get(metric, "")
            _add_missing(comparison, dataset, mode, (metric,), reason)
            continue
        # To first order in both (the delta method): right / clean, and right - expected(clean).
        fit_error, remark = 0.0, ""
        if metric == "relative_accuracy":
            weights, least = (1 / control_mean, -correct.mean() / control_mean**2), 0.0
        else:
            protocol = comparison.plan.protocols[dataset]
            slope = effective_robustness.compute_slope(protocol, float(control_mean))
            weights, least = (1.0, -slope), -np.inf
            fit_error = effective_robustness.compute_fit_error(protocol, float(control_mean))
            segment = effective_robustness.find_fit_segment(protocol, float(control_mean))
            remark = f"{FIT_REMARK} {segment.r2:g}"
        terms = [
            WeightedOutcomes(weights[0], correct, sources),
            WeightedOutcomes(weights[1], control_correct, control_sources),
        ]
        value = float(np.mean(values))
        estimate = _estimate_around(comparison, value, terms, fit_error)
        limited = Estimate(value, max(least, estimate.low), estimate.high)
        _add_row(comparison, dataset, mode, metric, limited, remark=remark)


def _estimate_around(
    comparison: Comparison, value: float, terms: list[WeightedOutcomes], fit_error: float = 0.0
) -> Estimate:
    """`value` with the limits' distances of a first-order expansion; `fit_error` is the standard
    error of a constant in it.
    """
    sampled = statistics.sample_weighted_sum(terms)
    variance = sampled.image_variance + fit_error**2
    interval = replace(sampled, image_variance=variance).compute_interval(
        comparison.plan.values.confidence
    )
    low, high = (value + limit - interval.value for limit in (interval.low, interval.high))
    return Estimate(value, low, high)


def _add_renditions(comparison: Comparison, dataset: str, mode: str, correct: Outcomes) -> None:
    """Add rows `top1/<rendition>` if the file names state renditions."""
    rows = next(iter(comparison.cells[dataset, mode].rows.values()))
    try:
        renditions = extract_renditions(pd.Series(rows.index)).to_numpy()
    except effective_robustness.NotApplicable:
        return
    for rendition in sorted(set(renditions)):
        selected = renditions == rendition
        sources = get_sources(comparison.cells[dataset, mode].rows)[selected]
        metric = f"top1/{rendition}"
        _add_accuracy(comparison, dataset, mode, metric, correct[selected], sources)


def _add_shape_bias(comparison: Comparison, dataset: str, mode: str, correct: Outcomes) -> None:
    cell = comparison.cells[dataset, mode]
    seeds = sorted(cell.records)
    first_rows = cell.rows[seeds[0]].reset_index()
    try:
        groups = cell.records[seeds[0]].groups
        texture = find_texture_labels(
            first_rows["image_id"], first_rows["label"], groups
        ).to_numpy()
    except effective_robustness.NotApplicable as reason:
        _add_missing(comparison, dataset, mode, ("shape_bias",), str(reason))
        return
    shape = np.where(texture[:, None] < 0, 0, correct)  # [images, seeds]
    predictions = build_outcome_matrix(cell.rows, "prediction", seeds)
    decided = shape + (predictions == texture[:, None])
    if not decided.any(axis=0).all():
        note = "no decision for the shape's or the texture's class"
        _add_missing(comparison, dataset, mode, ("shape_bias",), note)
        return
    sources = get_sources(cell.rows)
    if len(seeds) == 1 and len(set(sources)) == len(sources):
        confidence = comparison.plan.values.confidence
        estimate = statistics.compute_wilson_interval(shape[decided > 0], confidence)
    else:
        # The ratio of two means, to first order in both.
        value = float((shape.sum(axis=0) / decided.sum(axis=0)).mean())
        terms = [WeightedOutcomes(1 / decided.mean(), shape - value * decided, sources)]
        estimate = _estimate_around(comparison, value, terms)
    images = int(decided.sum(axis=0).mean())
    _add_row(comparison, dataset, mode, "shape_bias", estimate, images)
