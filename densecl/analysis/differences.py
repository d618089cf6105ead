"""Differences between modes on the same images and averaged over shifted datasets, with p-values
corrected per family.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from densecl.analysis import statistics
from densecl.analysis.claims import count_claim_tests, list_claim_tests, list_claims
from densecl.analysis.needed import (
    MAX_IMAGES_FACTOR,
    MAX_SEEDS,
    find_needed_images,
    find_needed_seeds,
)
from densecl.analysis.probe_results import (
    describe_measure,
    list_measure_places,
    list_reasons,
    select_measure,
)
from densecl.analysis.results import (
    SHIFTED_MEAN,
    Comparison,
    MetricRow,
    UnpairedImagesError,
    build_outcome_matrix,
    get_sources,
    merge_seeds,
)
from densecl.analysis.sampled_value import Estimate
from densecl.analysis.statistics import SEEDS_FOR_MODE, Outcomes, Sources, WeightedOutcomes
from densecl.analysis.variants import count_variant_tests, list_variant_tests

__all__ = ["SHIFTED_MEAN", "add_differences", "add_shifted_mean"]
TOO_FEW_SEEDS = f"fewer than {SEEDS_FOR_MODE} seeds do not tell how much they vary"


class PairedGaps(NamedTuple):
    """Differences of two modes on the images of one dataset or measure."""

    gaps: Outcomes  # [images, seeds]
    sources: Sources  # [images]
    seeds: tuple[int, ...]


def describe_mean(comparison: Comparison, names: Mapping[str, str]) -> str:
    """Over which datasets the mean is taken, by the given names."""
    complete = [names.get(s, s) for s in comparison.complete_sets]
    incomplete = [
        names.get(s, s) for s in comparison.shifted_sets if s not in comparison.complete_sets
    ]
    note = (
        f"mean over {', '.join(complete)}" if complete else "no shifted set has every mode and seed"
    )
    return note + (f"; left out, not complete: {', '.join(incomplete)}" if incomplete else "")


def add_shifted_mean(comparison: Comparison, mode: str) -> None:
    empty = MetricRow(SHIFTED_MEAN, "", mode, "top1", None, note=describe_mean(comparison, {}))
    datasets, seeds = comparison.complete_sets, comparison.plan.seeds
    if gaps := _list_gaps(comparison, mode):  # of a variant: the other modes define the sets
        comparison.add_row(replace(empty, note=gaps))
        return
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
        images = sum(map(len, outcomes))
        comparison.add_estimate(empty, estimate, images, seeds)
        chances = [comparison.rows[s, mode, "chance"].value or 0.0 for s in datasets]
        chance = Estimate(float(np.mean(chances)), np.nan, np.nan)
        row = MetricRow(SHIFTED_MEAN, "", mode, "chance", None)
        comparison.add_estimate(row, chance, images, seeds)


def _list_gaps(comparison: Comparison, mode: str) -> str:
    """What a mode lacks of the shifted mean."""
    return "; ".join(
        f"{s}: {reason}"
        for s in comparison.complete_sets
        for reason in merge_seeds(comparison.cells[s, mode].missing)
    )


def add_differences(comparison: Comparison) -> None:
    """Add differences on the shifted mean, on each dataset and of each measure of a probe, and the
    tests of three families: what the first screen judges, what the tables of datasets do, and
    what the table of variants does, each of them against its base.

    Within a family, adjusted p-value and simultaneous interval follow one single-step rule
    (Bonferroni), so that they hold for whatever a reader selects. A difference is in one family.
    """
    measures = list_measure_places(comparison)
    for mode, baseline in [*comparison.mode_pairs, *comparison.variant_pairs]:
        for place in (SHIFTED_MEAN, *comparison.plan.datasets):
            _add_dataset_difference(comparison, place, mode, baseline)
        for place, (probe, measure) in measures.items():
            _add_measure_difference(comparison, place, probe, measure, mode, baseline)
    tests = count_claim_tests(comparison)
    for test in list_claim_tests(comparison):
        _add_tests(comparison, *test, tests)
        _add_needed(comparison, *test, tests)
    others = list_table_tests(comparison)
    for test in others:
        _add_tests(comparison, *test, tests=len(others))
    tests = count_variant_tests(comparison)
    for test in list_variant_tests(comparison):
        _add_tests(comparison, *test, tests)
        _add_needed(comparison, *test, tests)


def list_table_tests(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Place and pair of the differences that have a verdict below the first screen: of all datasets
    and claims, those that it does not judge.
    """
    claimed = list_claim_tests(comparison)
    places = [*comparison.plan.datasets, *(claim.place for claim in list_claims(comparison))]
    return [
        (place, a, b)
        for a, b in comparison.mode_pairs
        for place in dict.fromkeys(places)
        if comparison.get_difference(place, a, b) and (place, a, b) not in claimed
    ]


def _add_dataset_difference(comparison: Comparison, place: str, mode: str, baseline: str) -> None:
    """Add the difference on a dataset or on the shifted mean, or why it is missing."""
    empty = MetricRow(place, "", mode, f"difference_to_{baseline}", None)
    is_mean = place == SHIFTED_MEAN
    datasets = comparison.complete_sets if is_mean else (place,)
    if is_mean and (gaps := _list_gaps(comparison, mode)):
        comparison.add_row(replace(empty, note=gaps))
        return
    try:
        pairs = [_collect_pair(comparison, s, mode, baseline) for s in datasets]
    except UnpairedImagesError as error:
        missing = [
            r for m in (mode, baseline) for s in datasets for r in comparison.cells[s, m].missing
        ]
        comparison.add_row(replace(empty, note="; ".join((str(error), *merge_seeds(missing)))))
        return
    notes = [comparison.cells[s, m].note for m in (mode, baseline) for s in datasets]
    note = describe_mean(comparison, {}) if is_mean else "; ".join(filter(None, notes))
    _add_difference(comparison, replace(empty, note=note), baseline, pairs)


def _add_measure_difference(
    comparison: Comparison, place: str, probe: str, measure: str, mode: str, baseline: str
) -> None:
    """Add the difference of a measure of a probe, or why it is missing."""
    empty = MetricRow(place, "", mode, f"difference_to_{baseline}", None)
    cells = [comparison.probes[probe, name] for name in (mode, baseline)]
    try:
        first, second = (select_measure(cell, measure) for cell in cells)
        pair = _pair_frames(first, second, measure, (mode, baseline))
    except UnpairedImagesError as error:
        note = "; ".join((str(error), *list_reasons(cells, measure)))
        comparison.add_row(replace(empty, note=note))
        return
    empty = replace(empty, note=describe_measure(cells, measure))
    _add_difference(comparison, empty, baseline, [pair])


def _add_difference(
    comparison: Comparison, empty: MetricRow, baseline: str, pairs: Sequence[PairedGaps]
) -> None:
    if not pairs:
        comparison.add_row(empty)
        return
    gaps, sources = [pair.gaps for pair in pairs], [pair.sources for pair in pairs]
    sampled = statistics.sample_difference(gaps, sources)
    estimate = sampled.compute_interval(comparison.plan.values.confidence)
    comparison.add_estimate(empty, estimate, sampled.images, pairs[0].seeds)
    comparison.sampled[empty.dataset, empty.mode, baseline] = sampled


def _collect_pair(comparison: Comparison, dataset: str, mode: str, baseline: str) -> PairedGaps:
    first, second = (comparison.cells[dataset, name].rows for name in (mode, baseline))
    return _pair_frames(first, second, "correct", (mode, baseline))


def _pair_frames(
    first: dict[int, pd.DataFrame],
    second: dict[int, pd.DataFrame],
    column: str,
    names: tuple[str, str],
) -> PairedGaps:
    """Differences of a column by image and common seed; raises UnpairedImagesError."""
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        raise UnpairedImagesError("no seed in common")
    if not first[seeds[0]].index.equals(second[seeds[0]].index):
        raise UnpairedImagesError(f"{names[0]} and {names[1]} were evaluated on different images")
    values = [build_outcome_matrix(frames, column, seeds) for frames in (first, second)]
    return PairedGaps(
        values[0] - values[1], get_sources({seed: first[seed] for seed in seeds}), seeds
    )


def _add_tests(comparison: Comparison, place: str, mode: str, baseline: str, tests: int) -> None:
    """Add p-value, adjusted p-value, simultaneous interval and the detectable difference."""
    row = comparison.rows[place, mode, f"difference_to_{baseline}"]
    sampled = comparison.sampled[place, mode, baseline]
    confidence = comparison.plan.values.confidence
    simultaneous = sampled.compute_interval(confidence, tests)
    family = f"family of {tests}"
    detectable = sampled.compute_detectable(confidence, tests)
    empty = replace(row, low=None, high=None)
    rows = {
        "p": replace(empty, value=sampled.compute_p(), note=""),
        "p_adjusted": replace(empty, value=simultaneous.p, note=family),
        "simultaneous": replace(row, low=simultaneous.low, high=simultaneous.high, note=family),
        "detectable": replace(empty, value=detectable, note=f"80 % power, {family}"),
    }
    for suffix, changed in rows.items():
        comparison.add_row(replace(changed, metric=f"{row.metric}_{suffix}"))


def _add_needed(comparison: Comparison, place: str, mode: str, baseline: str, tests: int) -> None:
    """Add the numbers of seeds, and of images, that would call a difference that is not called."""
    metric = f"difference_to_{baseline}"
    simultaneous = comparison.rows[place, mode, f"{metric}_simultaneous"]
    if not (simultaneous.low or 0.0) <= 0 <= (simultaneous.high or 0.0):
        return
    sampled = comparison.sampled[place, mode, baseline]
    confidence = comparison.plan.values.confidence
    note = f"80 % power at the difference seen, family of {tests}"
    empty = replace(simultaneous, low=None, high=None)
    seeds = find_needed_seeds(sampled, confidence, tests)
    images = find_needed_images(sampled, confidence, tests)
    is_spread_known = sampled.seeds >= SEEDS_FOR_MODE
    no_seeds = f"more than {MAX_SEEDS} seeds" if is_spread_known else TOO_FEW_SEEDS
    no_images = f"more than {MAX_IMAGES_FACTOR:.0f} times as many"
    for suffix, value, text in (
        ("needed_seeds", seeds, note if seeds else f"{no_seeds}, {note}"),
        ("needed_images", images, f"{'times as many' if images else no_images}, {note}"),
    ):
        row = replace(empty, metric=f"{metric}_{suffix}", value=value, note=text)
        comparison.add_row(row)
