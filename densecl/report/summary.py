"""The answer in sentences that claim no more than intervals and corrected p-values allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from densecl.analysis.comparison import BASELINE, MEAN, Comparison, Row, called
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import Cost
from densecl.config.params import CONTROL_SET, Mode
from densecl.report.formatting import joined, percent

Costs = Mapping[str, Sequence[Cost]]  # mode -> one a seed
NAMED = 3  # sets that a sentence names for each direction, the largest differences first
# docs/evaluation.md
SEED_NOISE = "0.1 to 0.5 points of top-1 in published ImageNet runs, many times that in small ones"
ALIKE = 0.02  # of the step time: less is the clock's noise


def answer(found: Comparison, costs: Costs | None = None) -> list[str]:
    """The headline, then what limits it."""
    return [*headline(found, costs or {}), *details(found)]


def headline(found: Comparison, costs: Costs) -> list[str]:
    """Two sentences: which mode beats which, where, by how much [interval], and at what cost in
    time.
    """
    modes = found.plan.modes
    if len(modes) == 1:
        return [
            f"There is only the mode {modes[0]}, so there is nothing to compare. "
            f"{_alone(found)}".strip()
        ]
    against = _reference(found)
    firsts = [a for a, b in found.pairs if b == against]
    verdicts = {a: verdict(found, a, against) for a in firsts}
    if not any(verdicts.values()):
        return [
            "No set was evaluated for two modes alike, so they cannot be compared; the missing "
            "cells are listed below."
        ]
    if (
        against != BASELINE
    ):  # the times are taken beside classification alone, which is neither of the two
        both = f"{_cost(firsts[0], costs)} and {_cost(against, costs)}"
        return [f"{verdicts[firsts[0]]}.", f"Beside classification alone, {both}."]
    if len(firsts) == 1:
        return [f"{verdicts[firsts[0]]}.", f"{_capital(_cost(firsts[0], costs))}."]
    said = {
        a: text or f"{_capital(a)} and {against} have no set and seed in common"
        for a, text in verdicts.items()
    }
    decided = {
        a: any(called(found, s, a, against) for s in (MEAN, *found.plan.datasets)) for a in firsts
    }
    return [f"{text}; {_cost(a, costs, 'it' if decided[a] else a)}." for a, text in said.items()]


def details(found: Comparison) -> list[str]:
    """What the seeds allow to say, the pairs that the headline leaves out, and what the tests would
    have missed.
    """
    if len(found.plan.modes) == 1:
        return []
    rest = [(a, b) for a, b in found.pairs if b not in (BASELINE, _reference(found))]
    others = [f"{said}." for a, b in rest if (said := verdict(found, a, b))]
    return [*_scope(found), *others, *_power(found)]


def _reference(found: Comparison) -> Mode:
    """What the headline puts the others beside: none; the next simpler mode, where nothing was
    evaluated together with none.
    """
    return next((b for a, b in found.pairs if verdict(found, a, b)), found.pairs[0][1])


def verdict(found: Comparison, first: Mode, second: Mode) -> str:
    """What the tests say of two modes, without a full stop; "" where no set has both."""
    tested = [s for s in (MEAN, *found.plan.datasets) if _tested(found, s, first, second)]
    if not tested:
        return ""
    many = _seeds(found, tested, first, second)
    one, other = _subject(first, many), _subject(second, many)
    groups = {
        sign: [s for s in tested if called(found, s, first, second) == sign] for sign in (1, -1)
    }
    said, object_ = [], other
    for sign in sorted(groups, key=lambda sign: groups[sign] != [] and MEAN not in groups[sign]):
        if groups[sign]:
            said.append(
                f"{_verb(sign, many)} {object_} "
                f"{joined(list(_places(found, groups[sign], first, second)))}"
            )
            object_ = "it" if many == 1 or many >= SEEDS_FOR_MODE else "them"
    if not said:
        return f"{_capital(one)} and {other} cannot be told apart {_where(found, tested)}"
    rest = len(tested) - sum(map(len, groups.values()))
    return f"{_capital(one)} {joined(said)}" + (
        "; no other difference between the two can be told from chance" if rest else ""
    )


def _tested(found: Comparison, dataset: str, first: str, second: str) -> bool:
    row = found.get(dataset, first, f"difference_to_{second}")
    return row is not None and row.value is not None


def _seeds(found: Comparison, tested: Sequence[str], first: str, second: str) -> int:
    """The fewest seeds behind any of the differences."""
    rows = [found.get(s, first, f"difference_to_{second}") for s in tested]
    return min(len(row.seeds.split()) for row in rows if row)


def _subject(mode: str, seeds: int) -> str:
    """Modes are spoken of from three seeds on; before, these models."""
    return mode if seeds >= SEEDS_FOR_MODE else f"the {mode} model{'s' if seeds > 1 else ''}"


def _verb(sign: int, seeds: int) -> str:
    plural = 1 < seeds < SEEDS_FOR_MODE
    return (
        ("beat" if sign > 0 else "fall behind")
        if plural
        else ("beats" if sign > 0 else "falls behind")
    )


def _places(found: Comparison, sets: Sequence[str], first: str, second: str) -> Iterator[str]:
    """The mean, then the largest differences; how many more there are."""
    rows: dict[str, Row] = {
        s: row for s in sets if (row := found.get(s, first, f"difference_to_{second}"))
    }
    largest = sorted((s for s in rows if s != MEAN), key=lambda s: -abs(rows[s].value or 0))
    for s in ([MEAN] if MEAN in rows else []) + [
        s for s in found.plan.datasets if s in largest[:NAMED]
    ]:
        yield f"by {_by(rows[s])} {_on(found, s)}"
    if len(largest) > NAMED:
        yield f"on {len(largest) - NAMED} further set{'s'[: len(largest) - NAMED != 1]}"


def _on(found: Comparison, dataset: str) -> str:
    if dataset != MEAN:
        return f"on {dataset}"
    return f"on average over {len(found.whole)} shifted set{'s'[: len(found.whole) != 1]}"


def _by(row: Row) -> str:
    """Size and interval, both counted in the direction of the difference."""
    value, low, high = row.value or 0.0, row.low or 0.0, row.high or 0.0
    low, high = (low, high) if value > 0 else (-high, -low)
    return f"{percent(abs(value))} points [{percent(low)}, {percent(high)}]"


def _where(found: Comparison, tested: Sequence[str]) -> str:
    sets = [s for s in tested if s != MEAN]
    where = f"on any of {len(sets)} sets" if len(sets) != 1 else f"on {sets[0]}"
    return where + (f", nor {_on(found, MEAN)}" if MEAN in tested else "")


def _cost(mode: str, costs: Costs, name: str = "") -> str:
    """Time of a training step beside that of classification alone on the same two views, measured
    in one process.
    """
    several = costs.get(mode, [])
    if not several:
        return f"what {mode} cost is not known: no cost.json was found"
    more = fmean(c.step_seconds / c.none_step_seconds for c in several) - 1
    if abs(more) < ALIKE:
        return f"{name or mode} cost no more time"
    return f"{name or mode} cost {abs(100 * more):.0f} % {'more' if more > 0 else 'less'} time"


def _alone(found: Comparison) -> str:
    scope = MEAN if found.whole else CONTROL_SET
    row = found.get(scope, found.plan.modes[0], "top1")
    return (
        ""
        if row is None or row.value is None
        else f"{_capital(_on(found, scope))}, it has a top-1 of {percent(row.value)} %."
    )


def _power(found: Comparison) -> list[str]:
    """What "cannot be told from chance" rules out."""
    scope = MEAN if found.whole else CONTROL_SET
    open_ = [(a, b) for a, b in found.pairs if not called(found, scope, a, b)]
    rows = [found.get(scope, a, f"difference_to_{b}_detectable") for a, b in open_]
    values = [row.value for row in rows if row and row.value is not None]
    if not values:
        return []
    return [
        f"Where two cannot be told apart {_on(found, scope)}: a true difference of "
        f"{percent(max(values))} points would have been "
        "told there in 80 % of such runs; a smaller one may well have been missed."
    ]


def _scope(found: Comparison) -> list[str]:
    """Whether this speaks of models or of modes: by the fewest seeds of any difference."""
    counts = [
        _seeds(found, tested, a, b)
        for a, b in found.pairs
        if (tested := [s for s in found.plan.datasets if _tested(found, s, a, b)])
    ]
    if not counts:
        return []
    least, planned = min(counts), found.plan.seeds
    if least >= SEEDS_FOR_MODE:
        return [
            f"From {least} seeds, so this speaks of the modes, trained this way on this data; the "
            f"intervals cover new seeds "
            "and new images."
        ]
    names = (
        f"one seed{f' ({planned[0]})' if len(planned) == 1 else ''}"
        if least == 1
        else f"{least} seeds"
    )
    return [
        f"From {names}, so this speaks of these models, not of the modes: the intervals do not "
        f"cover the noise between "
        f"seeds ({SEED_NOISE}); another seed may order the modes differently."
    ]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
