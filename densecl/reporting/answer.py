"""The answer in sentences that claim no more than intervals and corrected p-values allow."""

from __future__ import annotations

from collections.abc import Sequence

from densecl.params import CONTROL_SET
from densecl.reporting.comparison import MEAN, Comparison, called
from densecl.reporting.numbers import joined, percent
from densecl.reporting.statistics import SEEDS_FOR_MODE

SIGN = {1: "above", -1: "below"}


def answer(found: Comparison) -> list[str]:
    """The question answered in sentences that claim no more than intervals and corrected p-values allow."""
    modes, sets = found.plan.modes, found.whole
    scope = MEAN if sets else CONTROL_SET
    where = f"Averaged over {len(sets)} shifted set{'s'[: len(sets) != 1]}" if sets else f"On {CONTROL_SET} alone"
    if len(modes) == 1:
        row = found.get(scope, modes[0], "top1")
        score = f"{where}, it has a top-1 of {percent(row.value)} %." if row and row.value is not None else ""
        return [f"There is only the mode {modes[0]}, so there is nothing to compare. {score}".strip()]
    clauses = [c for mode in modes if (c := _clause(found, scope, mode))]
    if not clauses:
        return [
            "No set was evaluated for two modes alike, so they cannot be compared; the missing cells are listed below."
        ]
    by_set = [c for a, b in found.pairs for sign in (1, -1) if (c := _named(found, a, b, sign))]
    every = "Set by set, after Holm's correction, " + ("; ".join(by_set) or "no single set tells two modes apart") + "."
    return [f"{where}, {'; '.join(clauses)}.", *_power(found, scope), every, _scope(found.plan.seeds)]


def _power(found: Comparison, scope: str) -> list[str]:
    """What "cannot be told from" rules out."""
    open_ = [(a, b) for a, b in found.pairs if not called(found, scope, a, b)]
    rows = [found.get(scope, a, f"difference_to_{b}_detectable") for a, b in open_]
    values = [row.value for row in rows if row and row.value is not None]
    if not values:
        return []
    return [f"Where two cannot be told apart: no difference of {percent(max(values))} points or more would have been missed there "
            "(at 80 % power); a smaller one may be."]  # fmt: skip


def _clause(found: Comparison, scope: str, first: str) -> str:
    said = []
    for second in (b for a, b in found.pairs if a == first):
        row = found.get(scope, first, f"difference_to_{second}")
        if row is None or row.value is None:
            continue
        sign = called(found, scope, first, second)
        away = f"is {percent(abs(row.value))} points {SIGN[sign]}" if sign else "cannot be told from"
        said.append(f"{away} {second}")
    return f"{first} {joined(said)}" if said else ""


def _named(found: Comparison, first: str, second: str, sign: int) -> str:
    sets = [s for s in found.plan.datasets if called(found, s, first, second) == sign]
    return f"{first} is {SIGN[sign]} {second} on {', '.join(sets)}" if sets else ""


def _scope(seeds: Sequence[int]) -> str:
    if len(seeds) >= SEEDS_FOR_MODE:
        return f"From {len(seeds)} seeds, so this speaks of the modes, trained this way on this data."
    names = f"one seed ({seeds[0]})" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return f"From {names}, so this speaks of these models, not of the modes: another seed may order them differently."
