"""One line of the comparison: B - A for one mode on one set or on the mean, and whether it is
significant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from densecl.analysis import statistics
from densecl.analysis.results import compute_report_seed
from densecl.analysis.statistics import Estimate, Outcomes, WeightedOutcomes
from densecl.compare.pairing import NO_UNMATCHED, PairedCell, UnmatchedCounts
from densecl.config.params import ReportParams

# identical: the same predictions; open: not significant; unlike: not the same question; missing:
# nothing to compare
Call = Literal["better", "worse", "open", "identical", "unlike", "missing"]


@dataclass(frozen=True)
class SeedDelta:
    """One seed of a line."""

    seed: int
    a: float
    b: float
    difference: Estimate | None  # None: identical predictions


@dataclass(frozen=True)
class Delta:
    """B - A for one mode on one set, or on the mean of the shifted sets; fractions in [0, 1]."""

    dataset: str
    mode: str
    call: Call
    note: str = ""
    seeds: tuple[int, ...] = ()
    a: float | None = None
    b: float | None = None
    difference: Estimate | None = None
    p_holm: float | None = None
    detectable: float | None = None  # smallest true difference that would be called with 80 % power
    images: int = 0
    unmatched: UnmatchedCounts = NO_UNMATCHED
    per_seed: tuple[SeedDelta, ...] = ()


def compute_change(paired: PairedCell) -> Outcomes:
    return paired.b - paired.a


def build_delta(dataset: str, mode: str, paired: PairedCell, report_params: ReportParams) -> Delta:
    """Not yet corrected: `open` is what is to be tested."""
    note = "; ".join(
        t
        for t in (
            paired.class_mismatch,
            "" if paired.by_content else "matched by name: no manifest",
        )
        if t
    )
    call: Call = "identical" if paired.identical else "unlike" if paired.class_mismatch else "open"
    delta = Delta(
        dataset,
        mode,
        call,
        note,
        paired.seeds,
        float(paired.a.mean()),
        float(paired.b.mean()),
        images=paired.a.shape[0],
        unmatched=paired.unmatched,
        per_seed=_build_seed_deltas(dataset, mode, paired, report_params),
    )
    if call == "identical":
        return delta
    return replace(
        delta,
        difference=_estimate_delta(
            paired.a, paired.b, report_params, compute_report_seed("compare", dataset, mode)
        ),
    )


def _estimate_delta(a: Outcomes, b: Outcomes, report_params: ReportParams, seed: int) -> Estimate:
    """b - a of one set."""
    if needs_swap([b - a]):
        return flip_estimate(
            statistics.estimate_paired_difference(
                a, b, report_params.confidence, report_params.bootstrap_samples, seed
            )
        )
    return statistics.estimate_paired_difference(
        b, a, report_params.confidence, report_params.bootstrap_samples, seed
    )


def estimate_mean_delta(
    changes: Sequence[Outcomes], report_params: ReportParams, seed: int
) -> Estimate:
    """Mean over sets of b - a."""
    swapped = needs_swap(changes)
    gaps = [-change for change in changes] if swapped else changes
    estimate = statistics.estimate_mean_difference(
        gaps, report_params.confidence, report_params.bootstrap_samples, seed
    )
    return flip_estimate(estimate) if swapped else estimate


def needs_swap(changes: Sequence[Outcomes]) -> bool:
    """Is the difference taken the other way round, so that A and B exchanged are called alike
    whatever the redraws are?
    """
    value = sum(float(change.mean()) for change in changes)
    return value < 0 or (
        value == 0 and next((x < 0 for change in changes for x in change[change != 0]), False)
    )


def flip_estimate(estimate: Estimate) -> Estimate:
    return Estimate(
        0.0 - estimate.value, 0.0 - estimate.high, 0.0 - estimate.low, estimate.p
    )  # not -x, which makes -0.0 of 0.0


def _build_seed_deltas(
    dataset: str, mode: str, paired: PairedCell, report_params: ReportParams
) -> tuple[SeedDelta, ...]:
    deltas = []
    for column, seed in enumerate(paired.seeds):
        a, b = paired.a[:, [column]], paired.b[:, [column]]
        random_seed = compute_report_seed("compare", dataset, mode, str(seed))
        estimate = _estimate_delta(a, b, report_params, random_seed)
        deltas.append(
            SeedDelta(
                seed, float(a.mean()), float(b.mean()), None if paired.identical else estimate
            )
        )
    return tuple(deltas)


def compute_detectable_delta(
    terms: Sequence[WeightedOutcomes], report_params: ReportParams, tests: int
) -> float | None:
    """The smallest difference that one of so many tests would call with 80 % power; None where
    images are too few for a spread.
    """
    if min(term.outcomes.shape[0] for term in terms) < 2:
        return None
    return statistics.compute_detectable_difference(terms, report_params.confidence, max(tests, 1))


def apply_correction(deltas: Sequence[Delta], report_params: ReportParams) -> list[Delta]:
    """Holm's p over the open lines, and the call that it and the interval allow."""
    tested = [delta for delta in deltas if delta.call == "open" and delta.difference is not None]
    adjusted = statistics.apply_holm_correction(
        [float(delta.difference.p or 0) for delta in tested if delta.difference is not None]
    )
    p_values = {id(delta): p for delta, p in zip(tested, adjusted, strict=True)}
    return [
        _decide_call(delta, p_values[id(delta)], report_params) if id(delta) in p_values else delta
        for delta in deltas
    ]


def _decide_call(delta: Delta, p: float, report_params: ReportParams) -> Delta:
    estimate = delta.difference
    assert estimate is not None  # noqa: S101 - only deltas with a difference are tested
    significant = p <= 1 - report_params.confidence and not estimate.low <= 0 <= estimate.high
    call: Call = ("better" if estimate.value > 0 else "worse") if significant else "open"
    return replace(delta, call=call, p_holm=p)
