"""B - A on every dataset and mode that both experiments have, with intervals and p-values of
families as in the report.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Literal, Self

from densecl.analysis.differences import SHIFTED_MEAN
from densecl.analysis.sampled_value import Estimate, SampledValue
from densecl.analysis.statistics import (
    Outcomes,
    Sources,
    WeightedOutcomes,
    estimate_accuracy,
    estimate_weighted_sum,
    sample_difference,
)
from densecl.compare.pairing import (
    UNMATCHED_KINDS,
    PairedCell,
    UnmatchedCounts,
    UnpairedCellError,
    build_paired_cell,
)
from densecl.compare.read import Experiment
from densecl.config.params import CONTROL_SET, ReportParams
from densecl.config.titles import get_title
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
    sampled: SampledValue | None = None  # what the difference is computed from
    simultaneous: Estimate | None = None  # holds for all rows of the comparison at once
    family: int = 0  # tests in it
    detectable: float | None = None  # smallest true difference that would be called with 80 % power
    images: int = 0
    at_chance: tuple[Literal["A", "B"], ...] = ()  # not shown to be better than guessing
    chance: float | None = None
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
    def titles(self) -> dict[str, str]:
        """Display name of each dataset, that of B where the two differ."""
        sides = [x.plan for x in (self.b, self.a)]
        return {
            name: next((t for p in sides if (t := get_title(p.params, name)) != name), name)
            for plan in sides
            for name in plan.datasets
        }

    def format_dataset(self, delta: Delta) -> str:
        if delta.dataset == SHIFTED_MEAN:
            return "the mean of the shifted datasets"
        return self.titles.get(delta.dataset, delta.dataset)

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
    report_params = a.report_params  # B must not choose the level at which it is judged
    pairs: dict[tuple[str, str], PairedCell] = {}
    absent: dict[tuple[str, str], str] = {}
    for key in itertools.product(datasets, modes):
        try:
            pairs[key] = build_paired_cell(a, b, *key)
        except UnpairedCellError as error:
            absent[key] = str(error)
    if not pairs:
        raise DenseclError(_format_nothing_common(a, b, list(absent.values())))
    shifted_sets = _list_shifted_sets(a, b, datasets)
    deltas: list[Delta] = []
    for mode in modes:
        deltas += [
            _build_delta(s, mode, pairs[s, mode], report_params)
            if (s, mode) in pairs
            else Delta(s, mode, "missing", absent[s, mode])
            for s in datasets
        ]
        mean = _build_mean_delta(pairs, shifted_sets, mode, report_params)
        deltas += [mean] if mean.seeds else []
    judged = _judge_family(deltas, report_params)
    return ExperimentComparison(a, b, report_params, modes, judged, pairs)


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


def _build_delta(dataset: str, mode: str, pair: PairedCell, report_params: ReportParams) -> Delta:
    """A difference before the verdict; `open` means that it is tested."""
    unchecked = "" if pair.by_content else "matched by name: no manifest"
    call: Call = "identical" if pair.identical else "unlike" if pair.class_mismatch else "open"

    def build(columns: list[int]) -> Delta:
        a, b = pair.a[:, columns], pair.b[:, columns]
        delta = Delta(
            dataset,
            mode,
            call,
            seeds=tuple(pair.seeds[i] for i in columns),
            a=float(a.mean()),
            b=float(b.mean()),
            images=len(a),
        )
        if pair.identical:
            return delta
        return _add_estimate(delta, sample_difference([b - a], [pair.sources]), report_params)

    every = list(range(len(pair.seeds)))
    return replace(
        build(every),
        note="; ".join(filter(None, (pair.class_mismatch, unchecked))),
        unmatched=pair.unmatched,
        at_chance=() if pair.class_mismatch else _find_at_chance([pair], report_params),
        chance=None if pair.class_mismatch else pair.chance,
        per_seed=tuple(build([i]) for i in every),
    )


def _find_at_chance(
    cells: Sequence[PairedCell], report_params: ReportParams
) -> tuple[Literal["A", "B"], ...]:
    """The sides whose interval, of the mean over the cells, includes the accuracy of guessing or
    lies below it.
    """
    chance, sources = fmean(cell.chance for cell in cells), [cell.sources for cell in cells]

    def is_at_chance(outcomes: Sequence[Outcomes]) -> bool:
        return _estimate_mean(outcomes, sources, report_params.confidence).low <= chance

    sides: dict[Literal["A", "B"], Sequence[Outcomes]] = {
        "A": [cell.a for cell in cells],
        "B": [cell.b for cell in cells],
    }
    return tuple(letter for letter, outcomes in sides.items() if is_at_chance(outcomes))


def _estimate_mean(
    outcomes: Sequence[Outcomes], sources: Sequence[Sources], confidence: float
) -> Estimate:
    if len(outcomes) == 1:
        return estimate_accuracy(outcomes[0], confidence, sources[0])
    terms = [
        WeightedOutcomes(1 / len(outcomes), part, names)
        for part, names in zip(outcomes, sources, strict=True)
    ]
    return estimate_weighted_sum(terms, confidence)


def _add_estimate(delta: Delta, sampled: SampledValue, report_params: ReportParams) -> Delta:
    interval = sampled.compute_interval(report_params.confidence)
    return replace(delta, sampled=sampled, difference=interval)


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


def _build_mean_delta(
    pairs: CellPairs, shifted: tuple[str, ...], mode: str, report_params: ReportParams
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
        at_chance=_find_at_chance(cells, report_params),
        chance=fmean(p.chance for p in cells),
    )
    if all(p.identical for p in cells):
        return delta
    sampled = sample_difference([p.b - p.a for p in cells], [p.sources for p in cells])
    return replace(_add_estimate(delta, sampled, report_params), call="open")


def _judge_family(deltas: Sequence[Delta], report_params: ReportParams) -> tuple[Delta, ...]:
    """Set the verdicts of tested rows: all of the comparison are one family, since its headline
    names whichever differ.
    """
    tests = sum(delta.call == "open" for delta in deltas)
    return tuple(
        _judge_delta(delta, delta.sampled, tests, report_params.confidence)
        if delta.call == "open" and delta.sampled
        else delta
        for delta in deltas
    )


def _judge_delta(delta: Delta, sampled: SampledValue, tests: int, confidence: float) -> Delta:
    interval = sampled.compute_interval(confidence, tests)
    call: Call = "better" if interval.low > 0 else "worse" if interval.high < 0 else "open"
    return replace(
        delta,
        call=call,
        simultaneous=interval,
        family=tests,
        detectable=sampled.compute_detectable(confidence, tests),
    )
