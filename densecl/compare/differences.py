"""B - A on every set and mode that both have, each with its interval, and p-values corrected as in
the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from densecl.analysis.differences import SHIFTED_MEAN
from densecl.analysis.results import compute_report_seed
from densecl.analysis.statistics import WeightedOutcomes
from densecl.compare.deltas import (
    Call,
    Delta,
    apply_correction,
    build_delta,
    compute_change,
    compute_detectable_delta,
    estimate_mean_delta,
)
from densecl.compare.pairing import PairedCell, UnpairedCellError, build_paired_cell
from densecl.compare.read import Experiment
from densecl.config.params import CONTROL_SET, ReportParams
from densecl.errors import DenseclError
from densecl.evaluation.protocols import PROTOCOLS

CellKey = tuple[str, str]  # set, mode
CellPairs = Mapping[CellKey, PairedCell]


@dataclass(frozen=True)
class ExperimentComparison:
    """Everything that two experiments have in common, compared; `deltas` are by mode, then set, the
    mean last.
    """

    a: Experiment
    b: Experiment
    report_params: ReportParams
    modes: tuple[str, ...]
    datasets: tuple[str, ...]
    deltas: tuple[Delta, ...]
    pairs: CellPairs

    def select_by_call(self, *calls: Call) -> list[Delta]:
        return [delta for delta in self.deltas if delta.call in calls]

    @property
    def seeds(self) -> dict[str, tuple[int, ...]]:
        """The seeds that some set of a mode is compared over."""
        seeds_by_mode: dict[str, set[int]] = {mode: set() for mode in self.modes}
        for (_, mode), paired in self.pairs.items():
            seeds_by_mode[mode].update(paired.seeds)
        return {mode: tuple(sorted(seeds)) for mode, seeds in seeds_by_mode.items() if seeds}


def compare_experiments(a: Experiment, b: Experiment) -> ExperimentComparison:
    """Every set and mode of both; DenseclError where they have no image of any in common."""
    modes, datasets = (
        _list_common(a.plan.modes, b.plan.modes),
        _list_common(a.plan.datasets, b.plan.datasets),
    )
    report_params = _merge_report_params(a.report_params, b.report_params)
    pairs, absent = _build_pairs(a, b, datasets, modes)
    if not pairs:
        raise DenseclError(_format_nothing_common(a, b, list(absent.values())))
    by_mode = [_compute_mode_deltas(pairs, absent, datasets, mode, report_params) for mode in modes]
    shifted_sets = _list_shifted_sets(a, b, datasets)
    means = apply_correction(
        [
            _compute_mean_delta(pairs, shifted_sets, mode, report_params, len(modes))
            for mode in modes
        ],
        report_params,
    )
    deltas = [
        delta
        for mode_deltas, mean in zip(by_mode, means, strict=True)
        for delta in (*mode_deltas, *([mean] if mean.seeds else []))
    ]
    return ExperimentComparison(a, b, report_params, modes, datasets, tuple(deltas), pairs)


def _list_common(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in first if name in second)


def _merge_report_params(a: ReportParams, b: ReportParams) -> ReportParams:
    """The more cautious of the two, where they differ."""
    return ReportParams(
        confidence=max(a.confidence, b.confidence),
        bootstrap_samples=max(a.bootstrap_samples, b.bootstrap_samples),
    )


def _build_pairs(
    a: Experiment, b: Experiment, datasets: tuple[str, ...], modes: tuple[str, ...]
) -> tuple[CellPairs, dict[CellKey, str]]:
    """By set and mode: what can be compared, and why the rest cannot."""
    pairs: dict[CellKey, PairedCell] = {}
    absent: dict[CellKey, str] = {}
    for dataset in datasets:
        for mode in modes:
            try:
                pairs[dataset, mode] = build_paired_cell(a, b, dataset, mode)
            except UnpairedCellError as error:
                absent[dataset, mode] = str(error)
    return pairs, absent


def _format_nothing_common(a: Experiment, b: Experiment, reasons: list[str]) -> str:
    contents = [
        f"{experiment.origin.name} has sets {', '.join(plan.datasets)}, modes "
        f"{', '.join(plan.modes)}, "
        f"seeds {', '.join(map(str, plan.seeds))}"
        for experiment in (a, b)
        for plan in (experiment.plan,)
    ]
    reason = f" ({reasons[0]})" if reasons else ""
    return (
        f"nothing to compare: {contents[0]}; {contents[1]}{reason}; two experiments "
        f"need a set, a mode, a seed and images in common"
    )


def _compute_mode_deltas(
    pairs: CellPairs,
    absent: Mapping[CellKey, str],
    datasets: tuple[str, ...],
    mode: str,
    report_params: ReportParams,
) -> list[Delta]:
    """The lines of the sets; Holm's family is those that are tested."""
    deltas = [
        build_delta(s, mode, pairs[s, mode], report_params)
        if (s, mode) in pairs
        else Delta(s, mode, "missing", absent[s, mode])
        for s in datasets
    ]
    tests = sum(delta.call == "open" for delta in deltas)
    for i, delta in enumerate(deltas):
        if delta.call == "open":
            terms = [WeightedOutcomes(1.0, compute_change(pairs[delta.dataset, mode]))]
            deltas[i] = replace(
                delta, detectable=compute_detectable_delta(terms, report_params, tests)
            )
    return apply_correction(deltas, report_params)


def _list_shifted_sets(a: Experiment, b: Experiment, datasets: tuple[str, ...]) -> tuple[str, ...]:
    """Sets that are measured against a control, as the evaluations of both say."""
    protocols = {
        (dataset, cell.record.protocol) for x in (a, b) for (dataset, _, _), cell in x.cells.items()
    }
    unshifted = {
        dataset_name
        for dataset_name, protocol in protocols
        if (
            not PROTOCOLS[protocol].control
            if protocol in PROTOCOLS
            else dataset_name == CONTROL_SET
        )
    }
    return tuple(dataset for dataset in datasets if dataset not in unshifted)


def _compute_mean_delta(
    pairs: CellPairs, shifted: tuple[str, ...], mode: str, report_params: ReportParams, tests: int
) -> Delta:
    """B - A averaged over the shifted sets that are compared for all common seeds of the mode."""
    seeds = max((pairs[s, mode].seeds for s in shifted if (s, mode) in pairs), key=len, default=())
    complete = {
        s: p
        for s in shifted
        if (p := pairs.get((s, mode))) and p.seeds == seeds and not p.class_mismatch
    }
    if len(complete) < 2:
        return Delta(SHIFTED_MEAN, mode, "missing", "fewer than two shifted sets can be compared")
    omitted = [s for s in shifted if s not in complete]
    note = f"mean over {', '.join(complete)}" + (
        f"; left out: {', '.join(omitted)}" if omitted else ""
    )
    a, b = (
        fmean(float(side.mean()) for side in sides)
        for sides in zip(*((p.a, p.b) for p in complete.values()), strict=True)
    )
    delta = Delta(
        SHIFTED_MEAN,
        mode,
        "identical",
        note,
        seeds,
        a,
        b,
        images=sum(p.a.shape[0] for p in complete.values()),
    )
    if all(p.identical for p in complete.values()):
        return delta
    changes = [compute_change(p) for p in complete.values()]
    estimate = estimate_mean_delta(
        changes, report_params, compute_report_seed("compare", SHIFTED_MEAN, mode)
    )
    terms = [WeightedOutcomes(1 / len(complete), outcomes) for outcomes in changes]
    return replace(
        delta,
        call="open",
        difference=estimate,
        detectable=compute_detectable_delta(terms, report_params, tests),
    )
