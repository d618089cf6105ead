"""The rows of two modes on the same images, and of the mean over the shifted sets; p-values
corrected by families.
"""

from __future__ import annotations

from collections.abc import Sequence

from densecl.analysis import statistics
from densecl.analysis.results import (
    Comparison,
    MetricRow,
    UnpairedImagesError,
    build_outcome_matrix,
    compute_report_seed,
)
from densecl.analysis.statistics import Outcomes, WeightedOutcomes
from densecl.config.params import Mode

SHIFTED_MEAN = "(shifted mean)"  # brackets cannot occur in the name of a set


def _describe_mean(comparison: Comparison) -> str:
    incomplete = [s for s in comparison.shifted_sets if s not in comparison.complete_sets]
    note = (
        f"mean over {', '.join(comparison.complete_sets)}"
        if comparison.complete_sets
        else "no shifted set has every mode and seed"
    )
    return note + (f"; left out, not complete: {', '.join(incomplete)}" if incomplete else "")


def add_shifted_mean(comparison: Comparison, mode: str) -> None:
    note, report_params, datasets = (
        _describe_mean(comparison),
        comparison.plan.values,
        comparison.complete_sets,
    )
    if not datasets:
        comparison.add_row(MetricRow(SHIFTED_MEAN, "", mode, "top1", None, note=note))
        return
    try:
        correct_by_set = [
            build_outcome_matrix(comparison.cells[s, mode].rows, "correct", comparison.plan.seeds)
            for s in datasets
        ]
    except UnpairedImagesError as error:
        comparison.add_row(MetricRow(SHIFTED_MEAN, "", mode, "top1", None, note=str(error)))
        return
    terms = [WeightedOutcomes(1 / len(datasets), right) for right in correct_by_set]
    estimate = statistics.estimate_weighted_sum(
        terms,
        report_params.confidence,
        report_params.bootstrap_samples,
        compute_report_seed(SHIFTED_MEAN, mode, "top1"),
    )
    images = sum(right.shape[0] for right in correct_by_set)
    comparison.add_row(
        MetricRow(
            SHIFTED_MEAN,
            "",
            mode,
            "top1",
            estimate.value,
            estimate.low,
            estimate.high,
            images,
            " ".join(map(str, comparison.plan.seeds)),
            note,
        )
    )


def add_differences(comparison: Comparison, mode: Mode, baseline: Mode) -> None:
    """Differences on each set and on the mean of the shifted sets; p-values corrected over the
    sets.
    """
    metric, tested = f"difference_to_{baseline}", []
    for dataset in comparison.plan.datasets:
        row, p = _compute_difference(comparison, dataset, mode, baseline, metric)
        comparison.add_row(row)
        if p is not None:
            tested.append((row, p))
    for (row, p), adjusted_p in zip(
        tested, statistics.apply_holm_correction([p for _, p in tested]), strict=True
    ):
        _add_p_values(comparison, row, p, adjusted_p)
        mode_outcomes, baseline_outcomes, _ = _collect_pair(comparison, row.dataset, mode, baseline)
        _add_detectable_difference(
            comparison, row, [WeightedOutcomes(1.0, mode_outcomes - baseline_outcomes)], len(tested)
        )
    _add_mean_difference(comparison, mode, baseline, metric)
    if (mode, baseline) == comparison.pairs[-1]:
        _apply_holm_to_means(comparison)


def _collect_pair(
    comparison: Comparison, dataset: str, mode: str, baseline: str
) -> tuple[Outcomes, Outcomes, list[int]]:
    mode_cell, baseline_cell = comparison.cells[dataset, mode], comparison.cells[dataset, baseline]
    seeds = sorted(mode_cell.rows.keys() & baseline_cell.rows.keys())
    if not seeds:
        raise UnpairedImagesError(
            "; ".join(n for n in (mode_cell.note, baseline_cell.note) if n) or "no seed in common"
        )
    if not mode_cell.rows[seeds[0]].index.equals(baseline_cell.rows[seeds[0]].index):
        raise UnpairedImagesError(f"{mode} and {baseline} were evaluated on different images")
    return (
        build_outcome_matrix(mode_cell.rows, "correct", seeds),
        build_outcome_matrix(baseline_cell.rows, "correct", seeds),
        seeds,
    )


def _compute_difference(
    comparison: Comparison, dataset: str, mode: str, baseline: str, metric: str
) -> tuple[MetricRow, float | None]:
    report_params = comparison.plan.values
    try:
        mode_outcomes, baseline_outcomes, seeds = _collect_pair(comparison, dataset, mode, baseline)
    except UnpairedImagesError as error:
        return MetricRow(dataset, "", mode, metric, None, note=str(error)), None
    random_seed = compute_report_seed(dataset, mode, metric)
    estimate = statistics.estimate_paired_difference(
        mode_outcomes,
        baseline_outcomes,
        report_params.confidence,
        report_params.bootstrap_samples,
        random_seed,
    )
    note = "; ".join(
        n for n in (comparison.cells[dataset, name].note for name in (mode, baseline)) if n
    )
    seed_text = " ".join(map(str, seeds))
    return MetricRow(
        dataset,
        "",
        mode,
        metric,
        estimate.value,
        estimate.low,
        estimate.high,
        mode_outcomes.shape[0],
        seed_text,
        note,
    ), estimate.p


def _add_p_values(
    comparison: Comparison, row: MetricRow, p_value: float, adjusted_p: float
) -> None:
    for suffix, value in (("p", p_value), ("p_holm", adjusted_p)):
        comparison.add_row(
            MetricRow(
                row.dataset,
                "",
                row.mode,
                f"{row.metric}_{suffix}",
                value,
                images=row.images,
                seeds=row.seeds,
            )
        )


def _add_detectable_difference(
    comparison: Comparison, row: MetricRow, terms: Sequence[WeightedOutcomes], tests: int
) -> None:
    """The smallest true difference that would be called with 80 % power."""
    confidence = comparison.plan.values.confidence
    value = statistics.compute_detectable_difference(terms, confidence, tests)
    note = f"80 % power at level {(1 - confidence) / tests:.4g}"
    comparison.add_row(
        MetricRow(
            row.dataset,
            "",
            row.mode,
            f"{row.metric}_detectable",
            value,
            images=row.images,
            seeds=row.seeds,
            note=note,
        )
    )


def _add_mean_difference(comparison: Comparison, mode: str, baseline: str, metric: str) -> None:
    note, report_params, datasets = (
        _describe_mean(comparison),
        comparison.plan.values,
        comparison.complete_sets,
    )
    try:
        if not datasets:
            raise UnpairedImagesError(note)
        pairs = [_collect_pair(comparison, s, mode, baseline) for s in datasets]
    except UnpairedImagesError as error:
        comparison.add_row(MetricRow(SHIFTED_MEAN, "", mode, metric, None, note=str(error)))
        return
    gaps, random_seed = (
        [mode_outcomes - baseline_outcomes for mode_outcomes, baseline_outcomes, _ in pairs],
        compute_report_seed(SHIFTED_MEAN, mode, metric),
    )
    estimate = statistics.estimate_mean_difference(
        gaps, report_params.confidence, report_params.bootstrap_samples, random_seed
    )
    images, seed_text = (
        sum(mode_outcomes.shape[0] for mode_outcomes, _, _ in pairs),
        " ".join(map(str, comparison.plan.seeds)),
    )
    comparison.add_row(
        MetricRow(
            SHIFTED_MEAN,
            "",
            mode,
            metric,
            estimate.value,
            estimate.low,
            estimate.high,
            images,
            seed_text,
            note,
        )
    )
    comparison.add_row(
        MetricRow(SHIFTED_MEAN, "", mode, f"{metric}_p", estimate.p, images=images, seeds=seed_text)
    )


def _apply_holm_to_means(comparison: Comparison) -> None:
    """The pairs of modes are one family: the answer calls any of them."""
    for a, b in comparison.pairs:
        row = comparison.get_row(SHIFTED_MEAN, a, f"difference_to_{b}")
        if row and row.value is not None:
            pairs = [_collect_pair(comparison, s, a, b) for s in comparison.complete_sets]
            terms = [
                WeightedOutcomes(1 / len(pairs), mode_outcomes - baseline_outcomes)
                for mode_outcomes, baseline_outcomes, _ in pairs
            ]
            _add_detectable_difference(comparison, row, terms, len(comparison.pairs))
    rows = [
        r
        for a, b in comparison.pairs
        if (r := comparison.get_row(SHIFTED_MEAN, a, f"difference_to_{b}_p"))
        and r.value is not None
    ]
    for row, adjusted_p in zip(
        rows, statistics.apply_holm_correction([float(r.value or 0) for r in rows]), strict=True
    ):
        comparison.add_row(
            MetricRow(
                SHIFTED_MEAN,
                "",
                row.mode,
                f"{row.metric}_holm",
                adjusted_p,
                images=row.images,
                seeds=row.seeds,
            )
        )
