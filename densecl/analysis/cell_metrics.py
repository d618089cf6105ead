"""The rows of one set and mode: figures of the set, and beside its control."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from densecl.analysis import statistics
from densecl.analysis.results import (
    OUTCOME_COLUMNS,
    Comparison,
    MetricRow,
    UnpairedImagesError,
    build_outcome_matrix,
    compute_report_seed,
)
from densecl.analysis.statistics import Estimate, Outcomes, WeightedOutcomes
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
CONTROL_METRICS = ("control_top1", "drop", "relative_accuracy", "effective_robustness")


def add_cell_metrics(comparison: Comparison, dataset: str, mode: str) -> None:
    cell, protocol = comparison.cells[dataset, mode], comparison.get_protocol(dataset)
    control_metrics = CONTROL_METRICS if protocol.control else ()
    shape_metrics = ("shape_bias",) if protocol.names == "cue-conflict" else ()
    if not cell.records:
        for metric in (*OUTCOME_COLUMNS, *RECORDED_METRICS, *control_metrics, *shape_metrics):
            comparison.add_row(
                MetricRow(dataset, protocol.control, mode, metric, None, note=cell.note)
            )
        return
    try:
        _add_accuracies(comparison, dataset, mode)
        if control_metrics:
            _add_control_metrics(comparison, dataset, mode)
        if protocol.names == "rendition":
            _add_renditions(comparison, dataset, mode)
        if shape_metrics:
            _add_shape_bias(comparison, dataset, mode)
    except UnpairedImagesError as error:
        for metric in (*OUTCOME_COLUMNS, *control_metrics, *shape_metrics):
            comparison.add_row(
                MetricRow(dataset, protocol.control, mode, metric, None, note=str(error))
            )
    for metric in RECORDED_METRICS:
        mean = float(np.mean([getattr(record, metric) for record in cell.records.values()]))
        comparison.add_row(
            _build_row(comparison, dataset, mode, metric, Estimate(mean, np.nan, np.nan))
        )


def _build_row(
    comparison: Comparison,
    dataset: str,
    mode: str,
    metric: str,
    estimate: Estimate,
    images: int | None = None,
) -> MetricRow:
    """A row over all seeds that the cell has; limits of NaN are none."""
    cell = comparison.cells[dataset, mode]
    low, high = (None if np.isnan(limit) else limit for limit in (estimate.low, estimate.high))
    count = next(iter(cell.records.values())).images if images is None else images
    seed_text = " ".join(map(str, sorted(cell.records)))
    return MetricRow(
        dataset,
        comparison.get_protocol(dataset).control,
        mode,
        metric,
        estimate.value,
        low,
        high,
        count,
        seed_text,
        cell.note,
    )


def _add_accuracies(comparison: Comparison, dataset: str, mode: str) -> None:
    cell = comparison.cells[dataset, mode]
    for metric, column in OUTCOME_COLUMNS.items():
        correct = build_outcome_matrix(cell.rows, column, sorted(cell.records))
        comparison.add_row(
            _build_row(
                comparison,
                dataset,
                mode,
                metric,
                _estimate_accuracy(comparison, correct, dataset, mode, metric),
            )
        )


def _estimate_accuracy(comparison: Comparison, correct: Outcomes, *seed_words: str) -> Estimate:
    report_params = comparison.plan.values
    return statistics.estimate_accuracy(
        correct,
        report_params.confidence,
        report_params.bootstrap_samples,
        compute_report_seed(*seed_words),
    )


def _add_control_metrics(comparison: Comparison, dataset: str, mode: str) -> None:
    """Rows beside the matched control; where there is none, the reason in their place."""
    cell, control = comparison.cells[dataset, mode], comparison.get_protocol(dataset).control
    seeds = sorted(cell.records)
    if sorted(cell.controls) != seeds:
        reason = next(
            r.left_out.get("control", "no control")
            for r in cell.records.values()
            if r.control is None
        )
        for metric in CONTROL_METRICS:
            comparison.add_row(MetricRow(dataset, control, mode, metric, None, note=reason))
        return
    control_correct, correct = (
        build_outcome_matrix(cell.controls, "correct", seeds),
        build_outcome_matrix(cell.rows, "correct", seeds),
    )
    control_top1 = _estimate_accuracy(comparison, control_correct, dataset, mode, "control_top1")
    comparison.add_row(
        _build_row(
            comparison, dataset, mode, "control_top1", control_top1, control_correct.shape[0]
        )
    )
    drop = statistics.estimate_independent_difference(
        control_top1, _estimate_accuracy(comparison, correct, dataset, mode, "top1")
    )
    if len(seeds) > 1:
        drop = _estimate_sum(
            comparison,
            [WeightedOutcomes(1.0, control_correct), WeightedOutcomes(-1.0, correct)],
            dataset,
            mode,
            "drop",
        )
    comparison.add_row(_build_row(comparison, dataset, mode, "drop", drop))
    for metric, build_terms in (
        ("relative_accuracy", _build_ratio_terms),
        ("effective_robustness", _build_fit_terms),
    ):
        records = list(cell.records.values())
        values = [getattr(record, metric) for record in records]
        if any(value is None for value in values):
            reason = next(r.left_out.get(metric, "") for r in records if getattr(r, metric) is None)
            comparison.add_row(MetricRow(dataset, control, mode, metric, None, note=reason))
            continue
        terms = build_terms(comparison.plan.protocols[dataset], control_correct, correct)
        estimate = _move_interval(
            float(np.mean(values)), _estimate_sum(comparison, terms, dataset, mode, metric)
        )
        low = max(0.0, estimate.low) if metric == "relative_accuracy" else estimate.low
        comparison.add_row(
            _build_row(
                comparison, dataset, mode, metric, Estimate(estimate.value, low, estimate.high)
            )
        )


def _move_interval(value: float, interval: Estimate) -> Estimate:
    """`value` with the limits' distances of a first-order expansion."""
    return Estimate(
        value, value + interval.low - interval.value, value + interval.high - interval.value
    )


def _build_ratio_terms(
    _: str, control_correct: Outcomes, correct: Outcomes
) -> list[WeightedOutcomes]:
    """right / clean to first order in both (the delta method)."""
    return [
        WeightedOutcomes(1 / control_correct.mean(), correct),
        WeightedOutcomes(-correct.mean() / control_correct.mean() ** 2, control_correct),
    ]


def _build_fit_terms(
    protocol: str, control_correct: Outcomes, correct: Outcomes
) -> list[WeightedOutcomes]:
    """right - expected(clean) to first order in clean (the delta method)."""
    return [
        WeightedOutcomes(1.0, correct),
        WeightedOutcomes(
            -effective_robustness.compute_slope(protocol, float(control_correct.mean())),
            control_correct,
        ),
    ]


def _estimate_sum(
    comparison: Comparison, terms: Sequence[WeightedOutcomes], *seed_words: str
) -> Estimate:
    report_params = comparison.plan.values
    return statistics.estimate_weighted_sum(
        terms,
        report_params.confidence,
        report_params.bootstrap_samples,
        compute_report_seed(*seed_words),
    )


def _add_renditions(comparison: Comparison, dataset: str, mode: str) -> None:
    """Rows `top1/<rendition>`, where the file names tell renditions."""
    cell = comparison.cells[dataset, mode]
    seeds = sorted(cell.records)
    correct = build_outcome_matrix(cell.rows, "correct", seeds)
    try:
        renditions = extract_renditions(pd.Series(cell.rows[seeds[0]].index)).to_numpy()
    except effective_robustness.NotApplicable:
        return
    for rendition in sorted(set(renditions)):
        metric, selected = f"top1/{rendition}", correct[renditions == rendition]
        comparison.add_row(
            _build_row(
                comparison,
                dataset,
                mode,
                metric,
                _estimate_accuracy(comparison, selected, dataset, mode, metric),
                selected.shape[0],
            )
        )


def _add_shape_bias(comparison: Comparison, dataset: str, mode: str) -> None:
    cell = comparison.cells[dataset, mode]
    seeds = sorted(cell.records)
    first_rows = cell.rows[seeds[0]].reset_index()
    shape = build_outcome_matrix(cell.rows, "correct", seeds)  # [images, seeds]
    try:
        texture = find_texture_labels(first_rows["image_id"], first_rows["label"]).to_numpy()[
            :, None
        ]
    except effective_robustness.NotApplicable as reason:
        comparison.add_row(
            MetricRow(
                dataset,
                comparison.get_protocol(dataset).control,
                mode,
                "shape_bias",
                None,
                note=str(reason),
            )
        )
        return
    shape[texture[:, 0] < 0] = 0
    decided = shape + (build_outcome_matrix(cell.rows, "prediction", seeds) == texture)
    if not decided.any(axis=0).all():
        note = "no decision for the shape's or the texture's class"
        comparison.add_row(
            MetricRow(
                dataset,
                comparison.get_protocol(dataset).control,
                mode,
                "shape_bias",
                None,
                note=note,
            )
        )
        return
    if len(seeds) == 1:
        estimate = statistics.compute_wilson_interval(
            shape[decided > 0], comparison.plan.values.confidence
        )
    else:
        # The ratio of two means, to first order in both.
        value = float((shape.sum(axis=0) / decided.sum(axis=0)).mean())
        terms = [WeightedOutcomes(1 / decided.mean(), shape - value * decided)]
        estimate = _move_interval(
            value, _estimate_sum(comparison, terms, dataset, mode, "shape_bias")
        )
    comparison.add_row(
        _build_row(
            comparison, dataset, mode, "shape_bias", estimate, int(decided.sum(axis=0).mean())
        )
    )
