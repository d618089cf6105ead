"""One line of the comparison: B - A for one mode on one set or on the mean, and whether it is told
from chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from densecl.analysis import statistics
from densecl.analysis.results import seed_of
from densecl.analysis.statistics import Estimate, Outcomes, Part
from densecl.compare.pairing import NONE_LEFT_OUT, LeftOut, Pair
from densecl.config.params import Report

# identical: the same predictions; open: not told apart; unlike: not the same question; missing:
# nothing to compare
Call = Literal["better", "worse", "open", "identical", "unlike", "missing"]


@dataclass(frozen=True)
class Alone:
    """One seed of a line."""

    seed: int
    a: float
    b: float
    difference: Estimate | None  # None: identical predictions


@dataclass(frozen=True)
class Line:
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
    left_out: LeftOut = NONE_LEFT_OUT
    alone: tuple[Alone, ...] = ()


def change(paired: Pair) -> Outcomes:
    return paired.b - paired.a


def line_of(dataset: str, mode: str, paired: Pair, values: Report) -> Line:
    """Not yet corrected: `open` is what is to be tested."""
    note = "; ".join(
        t for t in (paired.unlike, "" if paired.by_content else "matched by name: no manifest") if t
    )
    call: Call = "identical" if paired.identical else "unlike" if paired.unlike else "open"
    line = Line(
        dataset,
        mode,
        call,
        note,
        paired.seeds,
        float(paired.a.mean()),
        float(paired.b.mean()),
        images=paired.a.shape[0],
        left_out=paired.left_out,
        alone=_alone(dataset, mode, paired, values),
    )
    if call == "identical":
        return line
    return replace(
        line, difference=_difference(paired.a, paired.b, values, seed_of("compare", dataset, mode))
    )


def _difference(a: Outcomes, b: Outcomes, values: Report, seed: int) -> Estimate:
    """b - a of one set."""
    if backwards([b - a]):
        return mirrored(
            statistics.paired_difference(a, b, values.confidence, values.bootstrap_samples, seed)
        )
    return statistics.paired_difference(b, a, values.confidence, values.bootstrap_samples, seed)


def mean_difference(changes: Sequence[Outcomes], values: Report, seed: int) -> Estimate:
    """Mean over sets of b - a."""
    turned = backwards(changes)
    gaps = [-each for each in changes] if turned else changes
    found = statistics.mean_difference(gaps, values.confidence, values.bootstrap_samples, seed)
    return mirrored(found) if turned else found


def backwards(changes: Sequence[Outcomes]) -> bool:
    """Is the difference taken the other way round, so that A and B exchanged are called alike
    whatever the redraws are?
    """
    value = sum(float(each.mean()) for each in changes)
    return value < 0 or (
        value == 0 and next((x < 0 for each in changes for x in each[each != 0]), False)
    )


def mirrored(e: Estimate) -> Estimate:
    return Estimate(
        0.0 - e.value, 0.0 - e.high, 0.0 - e.low, e.p
    )  # not -x, which makes -0.0 of 0.0


def _alone(dataset: str, mode: str, paired: Pair, values: Report) -> tuple[Alone, ...]:
    found = []
    for column, seed in enumerate(paired.seeds):
        a, b = paired.a[:, [column]], paired.b[:, [column]]
        of = seed_of("compare", dataset, mode, str(seed))
        own = _difference(a, b, values, of)
        found.append(
            Alone(seed, float(a.mean()), float(b.mean()), None if paired.identical else own)
        )
    return tuple(found)


def detectable(parts: Sequence[Part], values: Report, tests: int) -> float | None:
    """The smallest difference that one of so many tests would call with 80 % power; None where
    images are too few for a spread.
    """
    if min(part.values.shape[0] for part in parts) < 2:
        return None
    return statistics.detectable(parts, values.confidence, max(tests, 1))


def corrected(lines: Sequence[Line], values: Report) -> list[Line]:
    """Holm's p over the open lines, and the call that it and the interval allow."""
    tested = [line for line in lines if line.call == "open" and line.difference is not None]
    adjusted = statistics.holm(
        [float(line.difference.p or 0) for line in tested if line.difference is not None]
    )
    found = {id(line): p for line, p in zip(tested, adjusted, strict=True)}
    return [_called(line, found[id(line)], values) if id(line) in found else line for line in lines]


def _called(line: Line, p: float, values: Report) -> Line:
    e = line.difference
    assert e is not None  # noqa: S101 - only lines with a difference are tested
    sure = p <= 1 - values.confidence and not e.low <= 0 <= e.high
    call: Call = ("better" if e.value > 0 else "worse") if sure else "open"
    return replace(line, call=call, p_holm=p)
