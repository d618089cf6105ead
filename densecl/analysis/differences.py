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
    get_sources,
)
from densecl.analysis.sampled_value import SampledValue
from densecl.analysis.statistics import Outcomes, Sources, WeightedOutcomes
from densecl.config.params import Mode

__all__ = ["SHIFTED_MEAN", "add_differences", "add_shifted_mean"]


class PairedGaps(NamedTuple):
    """Differences of two modes on the images of one dataset."""

    gaps: Outcomes  # [images, seeds]
    sources: Sources  # [images]
    seeds: tuple[int, ...]


class TestedDifference(NamedTuple):
    row: MetricRow
    sampled: SampledValue


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
            [
                WeightedOutcomes(
                    1 / len(datasets), correct, get_sources(comparison.cells[s, mode].rows)
                )
                for s, correct in zip(datasets, outcomes, strict=True)
            ],
            comparison.plan.values.confidence,
        )
        comparison.add_estimate(empty, estimate, sum(map(len, outcomes)), seeds)


def add_differences(comparison: Comparison) -> None:
    """Add differences on the shifted mean and on each dataset.

    The means of all pairs of modes are one family of tests, which the headline reports; the
    datasets of all pairs are another. Within a family, adjusted p-value and simultaneous interval
    follow one single-step rule (Bonferroni), so that they hold for whatever a reader selects.
    """
    complete = comparison.complete_sets
    means = [
        _add_difference(comparison, SHIFTED_MEAN, complete, mode, baseline)
        for mode, baseline in comparison.mode_pairs
    ]
    single = [
        _add_difference(comparison, dataset, (dataset,), mode, baseline)
        for mode, baseline in comparison.mode_pairs
        for dataset in comparison.plan.datasets
    ]
    for family in (means, single):
        tested = [difference for difference in family if difference]
        for difference in tested:
            _add_tests(comparison, difference, len(tested))


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
        note, seeds = "; ".join(filter(None, notes)), pairs[0].seeds
    empty = replace(empty, note=note)
    if not pairs:
        comparison.add_row(empty)
        return None
    gaps, sources = [pair.gaps for pair in pairs], [pair.sources for pair in pairs]
    sampled = statistics.sample_difference(gaps, sources)
    estimate = sampled.compute_interval(comparison.plan.values.confidence)
    row = comparison.add_estimate(empty, estimate, sampled.images, seeds)
    return TestedDifference(row, sampled)


def _collect_pair(comparison: Comparison, dataset: str, mode: str, baseline: str) -> PairedGaps:
    cells = [comparison.cells[dataset, name] for name in (mode, baseline)]
    seeds = tuple(sorted(cells[0].rows.keys() & cells[1].rows.keys()))
    if not seeds:
        notes = "; ".join(filter(None, (cell.note for cell in cells)))
        raise UnpairedImagesError(notes or "no seed in common")
    if not cells[0].rows[seeds[0]].index.equals(cells[1].rows[seeds[0]].index):
        raise UnpairedImagesError(f"{mode} and {baseline} were evaluated on different images")
    first, second = (build_outcome_matrix(cell.rows, "correct", seeds) for cell in cells)
    return PairedGaps(first - second, get_sources(cells[0].rows), seeds)


def _add_tests(comparison: Comparison, difference: TestedDifference, tests: int) -> None:
    """Add p-value, adjusted p-value, simultaneous interval and the detectable difference."""
    row, sampled = difference
    confidence = comparison.plan.values.confidence
    simultaneous = sampled.compute_interval(confidence, tests)
    family = f"family of {tests}"
    detectable = sampled.compute_detectable(confidence, tests)
    empty = replace(row, low=None, high=None)
    for suffix, changed in (
        ("p", replace(empty, value=sampled.compute_p(), note="")),
        ("p_adjusted", replace(empty, value=simultaneous.p, note=family)),
        ("simultaneous", replace(row, low=simultaneous.low, high=simultaneous.high, note=family)),
        ("detectable", replace(empty, value=detectable, note=f"80 % power, {family}")),
    ):
        comparison.add_row(replace(changed, metric=f"{row.metric}_{suffix}"))
