"""B - A on every dataset and mode that both experiments have, with intervals and p-values corrected
as in the report.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, Self

import numpy as np

from densecl.analysis import statistics
from densecl.analysis.differences import SHIFTED_MEAN
from densecl.analysis.results import compute_report_seed
from densecl.analysis.statistics import Estimate, Outcomes, WeightedOutcomes
from densecl.compare.pairing import (
    UNMATCHED_KINDS,
    PairedCell,
    UnmatchedCounts,
    UnpairedCellError,
    build_paired_cell,
)
from densecl.compare.read import Experiment
from densecl.config.params import CONTROL_SET, ReportParams
from densecl.errors import DenseclError
from densecl.evaluation.protocols import PROTOCOLS

# identical: the same predictions; open: not significant; unlike: not the same question; missing:
# nothing to compare
Call = Literal["better", "worse", "open", "identical", "unlike", "missing"]
CellPairs = Mapping[tuple[str, str], PairedCell]  # by set and mode


@dataclass(frozen=True)
class Delta:
    """B - A for one mode on one dataset, or on the shifted mean; fractions in [0, 1]."""

    dataset: str
    mode: str
    call: Call
    note: str = ""
    seeds: tuple[int, ...] = ()
    a: float | None = None
    b: float | None = None
    difference: Estimate | None = None  # None: identical predictions, or nothing to compare
    p_holm: float | None = None
    detectable: float | None = None  # smallest true difference that would be called with 80 % power
    images: int = 0
    unmatched: UnmatchedCounts = field(default_factory=lambda: dict.fromkeys(UNMATCHED_KINDS, 0))
    per_seed: tuple[Self, ...] = ()


@dataclass(frozen=True)
class ExperimentComparison:
    """All results that two experiments share, compared; `deltas` by mode, then dataset, the mean
    last.
    """

    a: Experiment
    b: Experiment
    report_params: ReportParams
    modes: tuple[str, ...]
    deltas: tuple[Delta, ...]
    pairs: CellPairs

    def select_by_call(self, *calls: Call) -> list[Delta]:
        return [delta for delta in self.deltas if delta.call in calls]

    @property
    def seeds(self) -> dict[str, tuple[int, ...]]:
        """Seeds for which some dataset of a mode is compared."""
        seeds = {mode: set[int]() for mode in self.modes}
        for (_, mode), pair in self.pairs.items():
            seeds[mode].update(pair.seeds)
        return {mode: tuple(sorted(found)) for mode, found in seeds.items() if found}


def compare_experiments(a: Experiment, b: Experiment) -> ExperimentComparison:
    """Compare every shared dataset and mode; DenseclError if the experiments share no image."""
    modes = tuple(mode for mode in a.plan.modes if mode in b.plan.modes)
    datasets = tuple(dataset for dataset in a.plan.datasets if dataset in b.plan.datasets)
    report_params = ReportParams(  # the more cautious of the two, where they differ
        confidence=max(x.report_params.confidence for x in (a, b)),
        bootstrap_samples=max(x.report_params.bootstrap_samples for x in (a, b)),
    )
    pairs: dict[tuple[str, str], PairedCell] = {}
    absent: dict[tuple[str, str], str] = {}
    for key in itertools.product(datasets, modes):
        try:
            pairs[key] = build_paired_cell(a, b, *key)
        except UnpairedCellError as error:
            absent[key] = str(error)
    if not pairs:
        raise DenseclError(_format_nothing_common(a, b, list(absent.values())))
    by_mode = {
        mode: _compute_mode_deltas(pairs, absent, datasets, mode, report_params) for mode in modes
    }
    shifted_sets = _list_shifted_sets(a, b, datasets)
    means = [
        _compute_mean_delta(pairs, shifted_sets, mode, report_params, len(modes)) for mode in modes
    ]
    for mean in _apply_correction(means, report_params):
        if mean.seeds:
            by_mode[mean.mode].append(mean)
    deltas = tuple(itertools.chain.from_iterable(by_mode.values()))
    return ExperimentComparison(a, b, report_params, modes, deltas, pairs)


def _format_nothing_common(a: Experiment, b: Experiment, reasons: list[str]) -> str:
    contents = [
        f"{x.origin.name} has datasets {', '.join(x.plan.datasets)}, "
        f"modes {', '.join(x.plan.modes)}, seeds {', '.join(map(str, x.plan.seeds))}"
        for x in (a, b)
    ]
    reason = f" ({reasons[0]})" if reasons else ""
    return (
        f"nothing to compare: {contents[0]}; {contents[1]}{reason}; two experiments "
        f"need a dataset, a mode, a seed and images in common"
    )


def _compute_mode_deltas(
    pairs: CellPairs,
    absent: Mapping[tuple[str, str], str],
    datasets: tuple[str, ...],
    mode: str,
    report_params: ReportParams,
) -> list[Delta]:
    """Rows of one mode; the tested datasets form Holm's family."""
    deltas = [
        _build_delta(s, mode, pairs[s, mode], report_params)
        if (s, mode) in pairs
        else Delta(s, mode, "missing", absent[s, mode])
        for s in datasets
    ]
    tests = sum(delta.call == "open" for delta in deltas)
    return _apply_correction(
        [
            replace(
                delta,
                detectable=_compute_detectable([pairs[delta.dataset, mode]], report_params, tests),
            )
            if delta.call == "open"
            else delta
            for delta in deltas
        ],
        report_params,
    )


def _build_delta(dataset: str, mode: str, pair: PairedCell, report_params: ReportParams) -> Delta:
    """A difference before correction; `open` means that it is tested."""
    unchecked = "" if pair.by_content else "matched by name: no manifest"
    call: Call = "identical" if pair.identical else "unlike" if pair.class_mismatch else "open"

    def build(seeds: tuple[int, ...], a: Outcomes, b: Outcomes, *seed_words: str) -> Delta:
        random_seed = compute_report_seed("compare", dataset, mode, *seed_words)
        return Delta(
            dataset,
            mode,
            call,
            seeds=seeds,
            a=float(a.mean()),
            b=float(b.mean()),
            difference=None
            if pair.identical
            else _estimate_change([b - a], report_params, random_seed),
            images=a.shape[0],
        )

    return replace(
        build(pair.seeds, pair.a, pair.b),
        note="; ".join(filter(None, (pair.class_mismatch, unchecked))),
        unmatched=pair.unmatched,
        per_seed=tuple(
            build((seed,), pair.a[:, [i]], pair.b[:, [i]], str(seed))
            for i, seed in enumerate(pair.seeds)
        ),
    )


def _estimate_change(
    changes: Sequence[Outcomes], report_params: ReportParams, seed: int
) -> Estimate:
    """Mean over datasets of B - A; exchanging A and B changes only the sign."""
    total = sum(float(change.mean()) for change in changes)
    first = next((x for change in changes for x in change[change != 0]), 0.0)
    falls = total < 0 or (total == 0 and first < 0)
    gaps = [-change if falls else change for change in changes]
    settings = (report_params.confidence, report_params.bootstrap_samples, seed)
    if len(gaps) == 1:
        estimate = statistics.estimate_paired_difference(gaps[0], np.zeros_like(gaps[0]), *settings)
    else:
        estimate = statistics.estimate_mean_difference(gaps, *settings)
    if not falls:
        return estimate
    # Not -x, which makes -0.0 of 0.0.
    return Estimate(0.0 - estimate.value, 0.0 - estimate.high, 0.0 - estimate.low, estimate.p)


def _compute_detectable(
    pairs: Sequence[PairedCell], report_params: ReportParams, tests: int
) -> float | None:
    """Smallest difference that one of `tests` tests detects with 80 % power; None with too few
    images.
    """
    terms = [WeightedOutcomes(1 / len(pairs), pair.b - pair.a) for pair in pairs]
    if min(term.outcomes.shape[0] for term in terms) < 2:
        return None
    return statistics.compute_detectable_difference(terms, report_params.confidence, max(tests, 1))


def _list_shifted_sets(a: Experiment, b: Experiment, datasets: tuple[str, ...]) -> tuple[str, ...]:
    """Datasets with a control, according to the evaluations of both experiments."""
    unshifted = {
        dataset
        for x in (a, b)
        for (dataset, _, _), cell in x.cells.items()
        if (
            not PROTOCOLS[cell.record.protocol].control
            if cell.record.protocol in PROTOCOLS
            else dataset == CONTROL_SET
        )
    }
    return tuple(dataset for dataset in datasets if dataset not in unshifted)


def _compute_mean_delta(
    pairs: CellPairs, shifted: tuple[str, ...], mode: str, report_params: ReportParams, tests: int
) -> Delta:
    """B - A averaged over the shifted datasets that have all common seeds of the mode."""
    seeds = max((pairs[s, mode].seeds for s in shifted if (s, mode) in pairs), key=len, default=())
    complete = {
        s: p
        for s in shifted
        if (p := pairs.get((s, mode))) and p.seeds == seeds and not p.class_mismatch
    }
    if len(complete) < 2:
        return Delta(
            SHIFTED_MEAN, mode, "missing", "fewer than two shifted datasets can be compared"
        )
    omitted = ", ".join(s for s in shifted if s not in complete)
    cells = list(complete.values())
    delta = Delta(
        SHIFTED_MEAN,
        mode,
        "identical",
        f"mean over {', '.join(complete)}" + (f"; left out: {omitted}" if omitted else ""),
        seeds,
        fmean(float(p.a.mean()) for p in cells),
        fmean(float(p.b.mean()) for p in cells),
        images=sum(p.a.shape[0] for p in cells),
    )
    if all(p.identical for p in cells):
        return delta
    random_seed = compute_report_seed("compare", SHIFTED_MEAN, mode)
    return replace(
        delta,
        call="open",
        difference=_estimate_change([p.b - p.a for p in cells], report_params, random_seed),
        detectable=_compute_detectable(cells, report_params, tests),
    )


def _apply_correction(deltas: Sequence[Delta], report_params: ReportParams) -> list[Delta]:
    """Apply Holm's correction to tested rows, and set their verdicts."""
    tested = {
        i: delta.difference
        for i, delta in enumerate(deltas)
        if delta.call == "open" and delta.difference
    }
    adjusted = statistics.apply_holm_correction([float(e.p or 0) for e in tested.values()])
    decided = list(deltas)
    for (i, estimate), p in zip(tested.items(), adjusted, strict=True):
        significant = p <= 1 - report_params.confidence and not estimate.low <= 0 <= estimate.high
        call: Call = "open" if not significant else "better" if estimate.value > 0 else "worse"
        decided[i] = replace(decided[i], call=call, p_holm=p)
    return decided
