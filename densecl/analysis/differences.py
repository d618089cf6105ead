"""Differences between modes on the same images and averaged over shifted datasets, with p-values
corrected per family.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from densecl.analysis import statistics
from densecl.analysis.results import (
    SHIFTED_MEAN,
    Comparison,
    MetricRow,
    UnpairedImagesError,
    build_outcome_matrix,
)
from densecl.analysis.statistics import Outcomes, WeightedOutcomes
from densecl.config.params import Mode

__all__ = ["SHIFTED_MEAN", "add_differences", "add_shifted_mean"]


class TestedDifference(NamedTuple):
    row: MetricRow
    p: float
    terms: list[WeightedOutcomes]


def _describe_mean(comparison: Comparison) -> str:
    incomplete = [s for s in comparison.shifted_sets if s not in comparison.complete_sets]
    note = (
        f"mean over {', '.join(comparison.complete_sets)}"
        if comparison.complete_sets
        else "no shifted set has every mode and seed"
    )
    return note + (f"; left out, not complete: {', '.join(incomplete)}" if incomplete else "")


def add_shifted_mean(comparison: Comparison, mode: str) -> None:
    empty = MetricRow(SHIFTED_MEAN, "", mode, "top1", None, note=_describe_mean(comparison))
    datasets, seeds = comparison.complete_sets, comparison.plan.seeds
    try:
        outcomes = [
            build_outcome_matrix(comparison.cells[s, mode].rows, "correct", seeds) for s in datasets
        ]
    except UnpairedImagesError as error:
        comparison.add_row(replace(empty, note=str(error)))
        return
    comparison.add_row(empty)
    if datasets:
        estimate = statistics.estimate_weighted_sum(
            [WeightedOutcomes(1 / len(datasets), correct) for correct in outcomes],
            *comparison.get_settings(SHIFTED_MEAN, mode, "top1"),
        )
        comparison.add_estimate(empty, estimate, sum(map(len, outcomes)), seeds)


def add_differences(comparison: Comparison) -> None:
    """Add differences on each dataset and on the shifted mean; p-values are corrected over the
    datasets.
    """
    means = []
    for mode, baseline in comparison.mode_pairs:
        tested = [
            difference
            for s in comparison.plan.datasets
            if (difference := _add_difference(comparison, s, (s,), mode, baseline))
        ]
        adjusted = statistics.apply_holm_correction([difference.p for difference in tested])
        for (row, p, terms), p_holm in zip(tested, adjusted, strict=True):
            _add_test(comparison, row, "p", p)
            _add_test(comparison, row, "p_holm", p_holm)
            _add_detectable(comparison, row, terms, len(tested))
        mean = _add_difference(comparison, SHIFTED_MEAN, comparison.complete_sets, mode, baseline)
        if mean:
            _add_test(comparison, mean.row, "p", mean.p)
            means.append(mean)
    for row, _, terms in means:
        _add_detectable(comparison, row, terms, len(comparison.mode_pairs))
    adjusted = statistics.apply_holm_correction([mean.p for mean in means])
    for mean, p_holm in zip(means, adjusted, strict=True):
        _add_test(comparison, mean.row, "p_holm", p_holm)


def _add_difference(
    comparison: Comparison, place: str, datasets: Sequence[str], mode: Mode, baseline: Mode
) -> TestedDifference | None:
    """Add the difference on a dataset or on the shifted mean; None if the row states why it is
    missing.
    """
    metric = f"difference_to_{baseline}"
    empty = MetricRow(place, "", mode, metric, None)
    try:
        pairs = [_collect_pair(comparison, s, mode, baseline) for s in datasets]
    except UnpairedImagesError as error:
        comparison.add_row(replace(empty, note=str(error)))
        return None
    if place == SHIFTED_MEAN:
        note, seeds = _describe_mean(comparison), comparison.plan.seeds
    else:
        notes = (comparison.cells[place, name].note for name in (mode, baseline))
        note, seeds = "; ".join(filter(None, notes)), pairs[0][2]
    empty = replace(empty, note=note)
    if not pairs:
        comparison.add_row(empty)
        return None
    gaps = [first - second for first, second, _ in pairs]
    settings = comparison.get_settings(place, mode, metric)
    estimate = (
        statistics.estimate_mean_difference(gaps, *settings)
        if place == SHIFTED_MEAN
        else statistics.estimate_paired_difference(pairs[0][0], pairs[0][1], *settings)
    )
    row = comparison.add_estimate(empty, estimate, sum(map(len, gaps)), seeds)
    terms = [WeightedOutcomes(1 / len(gaps), gap) for gap in gaps]
    return TestedDifference(row, float(estimate.p or 0), terms)


def _collect_pair(
    comparison: Comparison, dataset: str, mode: str, baseline: str
) -> tuple[Outcomes, Outcomes, tuple[int, ...]]:
    cells = [comparison.cells[dataset, name] for name in (mode, baseline)]
    seeds = tuple(sorted(cells[0].rows.keys() & cells[1].rows.keys()))
    if not seeds:
        notes = "; ".join(filter(None, (cell.note for cell in cells)))
        raise UnpairedImagesError(notes or "no seed in common")
    if not cells[0].rows[seeds[0]].index.equals(cells[1].rows[seeds[0]].index):
        raise UnpairedImagesError(f"{mode} and {baseline} were evaluated on different images")
    first, second = (build_outcome_matrix(cell.rows, "correct", seeds) for cell in cells)
    return first, second, seeds


def _add_test(
    comparison: Comparison, row: MetricRow, suffix: str, value: float, note: str = ""
) -> None:
    metric = f"{row.metric}_{suffix}"
    comparison.add_row(replace(row, metric=metric, value=value, low=None, high=None, note=note))


def _add_detectable(
    comparison: Comparison, row: MetricRow, terms: Sequence[WeightedOutcomes], tests: int
) -> None:
    """The smallest true difference that would be called with 80 % power."""
    confidence = comparison.plan.values.confidence
    value = statistics.compute_detectable_difference(terms, confidence, tests)
    note = f"80 % power at level {(1 - confidence) / tests:.4g}"
    _add_test(comparison, row, "detectable", value, note)
