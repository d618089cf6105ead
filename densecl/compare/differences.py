"""B - A on every set and mode that both have, each with its interval, and p-values corrected as in
the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from densecl.analysis.differences import MEAN
from densecl.analysis.results import seed_of
from densecl.analysis.statistics import Part
from densecl.compare.deltas import (
    Call,
    Line,
    change,
    corrected,
    detectable,
    line_of,
    mean_difference,
)
from densecl.compare.pairing import Pair, Unpaired, pair
from densecl.compare.read import Experiment
from densecl.config.params import CONTROL_SET, Report
from densecl.errors import DenseclError
from densecl.evaluation.protocols import PROTOCOLS

Place = tuple[str, str]  # set, mode
Pairs = Mapping[Place, Pair]


@dataclass(frozen=True)
class Versus:
    """Everything that two experiments have in common, compared; `lines` are by mode, then set, the
    mean last.
    """

    a: Experiment
    b: Experiment
    values: Report
    modes: tuple[str, ...]
    datasets: tuple[str, ...]
    lines: tuple[Line, ...]
    pairs: Pairs

    def called(self, *calls: Call) -> list[Line]:
        return [line for line in self.lines if line.call in calls]

    @property
    def seeds(self) -> dict[str, tuple[int, ...]]:
        """The seeds that some set of a mode is compared over."""
        found: dict[str, set[int]] = {mode: set() for mode in self.modes}
        for (_, mode), paired in self.pairs.items():
            found[mode].update(paired.seeds)
        return {mode: tuple(sorted(seeds)) for mode, seeds in found.items() if seeds}


def versus(a: Experiment, b: Experiment) -> Versus:
    """Every set and mode of both; DenseclError where they have no image of any in common."""
    modes, datasets = _both(a.plan.modes, b.plan.modes), _both(a.plan.datasets, b.plan.datasets)
    values = _values(a.report, b.report)
    pairs, absent = _pairs(a, b, datasets, modes)
    if not pairs:
        raise DenseclError(_nothing(a, b, list(absent.values())))
    by_mode = [_of_mode(pairs, absent, datasets, mode, values) for mode in modes]
    shifted = _shifted(a, b, datasets)
    means = corrected([_mean(pairs, shifted, mode, values, len(modes)) for mode in modes], values)
    lines = [
        line
        for own, mean in zip(by_mode, means, strict=True)
        for line in (*own, *([mean] if mean.seeds else []))
    ]
    return Versus(a, b, values, modes, datasets, tuple(lines), pairs)


def _both(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in first if name in second)


def _values(a: Report, b: Report) -> Report:
    """The more cautious of the two, where they differ."""
    return Report(
        confidence=max(a.confidence, b.confidence),
        bootstrap_samples=max(a.bootstrap_samples, b.bootstrap_samples),
    )


def _pairs(
    a: Experiment, b: Experiment, datasets: tuple[str, ...], modes: tuple[str, ...]
) -> tuple[Pairs, dict[Place, str]]:
    """By set and mode: what can be compared, and why the rest cannot."""
    found: dict[Place, Pair] = {}
    absent: dict[Place, str] = {}
    for dataset in datasets:
        for mode in modes:
            try:
                found[dataset, mode] = pair(a, b, dataset, mode)
            except Unpaired as error:
                absent[dataset, mode] = str(error)
    return found, absent


def _nothing(a: Experiment, b: Experiment, reasons: list[str]) -> str:
    has = [
        f"{x.origin.name} has sets {', '.join(plan.datasets)}, modes {', '.join(plan.modes)}, "
        f"seeds {', '.join(map(str, plan.seeds))}"
        for x in (a, b)
        for plan in (x.plan,)
    ]
    why = f" ({reasons[0]})" if reasons else ""
    return (
        f"nothing to compare: {has[0]}; {has[1]}{why}; two experiments "
        f"need a set, a mode, a seed and images in common"
    )


def _of_mode(
    pairs: Pairs, absent: Mapping[Place, str], datasets: tuple[str, ...], mode: str, values: Report
) -> list[Line]:
    """The lines of the sets; Holm's family is those that are tested."""
    lines = [
        line_of(s, mode, pairs[s, mode], values)
        if (s, mode) in pairs
        else Line(s, mode, "missing", absent[s, mode])
        for s in datasets
    ]
    tests = sum(line.call == "open" for line in lines)
    for i, line in enumerate(lines):
        if line.call == "open":
            parts = [Part(1.0, change(pairs[line.dataset, mode]))]
            lines[i] = replace(line, detectable=detectable(parts, values, tests))
    return corrected(lines, values)


def _shifted(a: Experiment, b: Experiment, datasets: tuple[str, ...]) -> tuple[str, ...]:
    """Sets that are measured against a control, as the evaluations of both say."""
    protocols = {
        (dataset, cell.record.protocol) for x in (a, b) for (dataset, _, _), cell in x.cells.items()
    }
    own = {
        d
        for d, protocol in protocols
        if (not PROTOCOLS[protocol].control if protocol in PROTOCOLS else d == CONTROL_SET)
    }
    return tuple(dataset for dataset in datasets if dataset not in own)


def _mean(pairs: Pairs, shifted: tuple[str, ...], mode: str, values: Report, tests: int) -> Line:
    """B - A averaged over the shifted sets that are compared for all common seeds of the mode."""
    seeds = max((pairs[s, mode].seeds for s in shifted if (s, mode) in pairs), key=len, default=())
    whole = {
        s: p for s in shifted if (p := pairs.get((s, mode))) and p.seeds == seeds and not p.unlike
    }
    if len(whole) < 2:
        return Line(MEAN, mode, "missing", "fewer than two shifted sets can be compared")
    left = [s for s in shifted if s not in whole]
    note = f"mean over {', '.join(whole)}" + (f"; left out: {', '.join(left)}" if left else "")
    a, b = (
        fmean(float(side.mean()) for side in sides)
        for sides in zip(*((p.a, p.b) for p in whole.values()), strict=True)
    )
    line = Line(
        MEAN, mode, "identical", note, seeds, a, b, images=sum(p.a.shape[0] for p in whole.values())
    )
    if all(p.identical for p in whole.values()):
        return line
    changes = [change(p) for p in whole.values()]
    e = mean_difference(changes, values, seed_of("compare", MEAN, mode))
    parts = [Part(1 / len(whole), each) for each in changes]
    return replace(line, call="open", difference=e, detectable=detectable(parts, values, tests))
