"""What the comparison says, in sentences that claim no more than intervals and corrected p-values
allow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from densecl.analysis.differences import MEAN
from densecl.analysis.results import BASELINE
from densecl.analysis.statistics import SEEDS_FOR_MODE, Estimate
from densecl.compare.changes import Changes, Costs
from densecl.compare.deltas import Call, Line
from densecl.compare.differences import Versus
from densecl.report.summary import SEED_NOISE

MENTIONED = 3  # cells that the verdict names for each direction


def percent(value: float) -> str:
    return f"{100 * value:.1f}".replace("-", "−")


def points(value: float) -> str:
    """Signed; what rounds to nothing has no sign."""
    text = f"{100 * value:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else text.replace("-", "−")


def interval(e: Estimate) -> str:
    return f"[{points(e.low)}, {points(e.high)}]"


def place(line: Line) -> str:
    return "the mean of the shifted sets" if line.dataset == MEAN else line.dataset


def verdict(found: Versus) -> str:
    """One line: what is worse, what is better, and how many cells (a set in a mode) say nothing."""
    worse, better = found.called("worse"), found.called("better")
    counts = Counter(line.call for line in found.lines if line.dataset != MEAN)
    ways: dict[Call, str] = {
        "open": "cannot be told apart",
        "identical": "identical",
        "unlike": "not judged, asked among different classes",
        "missing": "not to be compared",
    }
    if worse or better:
        first, second = (
            (("worse", worse), ("better", better))
            if worse
            else (("better", better), ("worse", worse))
        )
        other = f"{second[0]} on {_named(second[1])}" if second[1] else f"{second[0]} nowhere"
        said = [f"B is {first[0]} than A on {_named(first[1])}", other]
    elif counts["open"]:
        said = [
            f"No difference between A and B can be told from chance in {_cells(counts['open'])}"
        ]
        del ways["open"]
    elif counts["identical"]:
        said = [
            f"No difference: A and B answered every image alike in {_cells(counts['identical'])}"
        ]
        del ways["identical"]
    else:
        said = ["Nothing could be judged"]
    said += [_count(counts[call], text) for call, text in ways.items() if counts[call]]
    partial = sum(str(line.left_out) != "" for line in found.lines)
    return (
        "; ".join([*said, *([f"images are left out of {_cells(partial)}"] if partial else [])])
        + "."
    )


def _cells(count: int) -> str:
    return f"{count} cell{'s'[: count > 1]}"


def _count(count: int, text: str) -> str:
    if text.startswith("cannot"):
        return f"{_cells(count)} {text}"
    return f"{_cells(count)} {'is' if count == 1 else 'are'} {text}"


def _named(lines: Sequence[Line]) -> str:
    """The largest differences first; the mean, which speaks of several sets, before all."""
    order = sorted(
        lines,
        key=lambda line: (
            line.dataset != MEAN,
            -abs(line.difference.value if line.difference else 0),
        ),
    )
    said = [
        f"{place(line)} ({line.mode}: {points(line.difference.value)} {interval(line.difference)})"
        for line in order[:MENTIONED]
        if line.difference
    ]
    more = [f"{len(order) - MENTIONED} more"] if len(order) > MENTIONED else []
    return " and ".join(t for t in (", ".join([*said, *more][:-1]), [*said, *more][-1]) if t)


def sentences(found: Versus, changed: Changes) -> list[str]:
    """Below the verdict: what it rules out, what it speaks of, what it cost."""
    return [*_power(found), *_scope(found), *_cost(changed.costs)]


def _power(found: Versus) -> list[str]:
    values = [line.detectable for line in found.called("open") if line.detectable is not None]
    if not values:
        return []
    least, most = percent(min(values)), percent(max(values))
    between = least if least == most else f"{least} to {most}"
    return [
        f"Where two cannot be told apart, a true difference below {between} points (by cell, at "
        f"80 % power) may have been missed."
    ]


def _scope(found: Versus) -> list[str]:
    """What is told apart or not is the models, or the modes where every cell has seeds enough."""
    told = [line for line in found.lines if line.call in ("better", "worse", "open")]
    few = {line.mode for line in told if len(line.seeds) < SEEDS_FOR_MODE}
    many, rest = ([line for line in told if (line.mode in few) == want] for want in (False, True))
    said = []
    if many:
        said.append(
            f"{_from(many)}, so this speaks of the modes, trained as A and as B; the intervals "
            f"cover new seeds."
        )
    if rest:
        said.append(
            f"{_from(rest)}, so this speaks of these models, not of what was changed: another "
            f"seed moves top-1 too "
            f"({SEED_NOISE}), and the intervals do not cover that."
        )
    return said


def _from(lines: Sequence[Line]) -> str:
    """Whose seeds, and how many."""
    seeds, modes = {line.seeds for line in lines}, list(dict.fromkeys(line.mode for line in lines))
    counts = sorted({len(each) for each in seeds})
    many = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
    shown = (
        f"one seed ({next(iter(seeds))[0]})"
        if counts == [1] and len(seeds) == 1
        else f"{many} common seeds"
    )
    return f"From {shown} of {_joined(modes)}"


def _cost(costs: Sequence[Costs]) -> list[str]:
    """Beside classification only in the same process: two runs at two times may have had a machine
    more or less busy.
    """
    clauses = [
        f"{c.mode} {c.a['against_none']:.2f} × in A and {c.b['against_none']:.2f} × in B"
        for c in costs
        if not c.same and c.mode != BASELINE
    ]
    return (
        [
            f"A training step took, against classification only in the same process: "
            f"{'; '.join(clauses)}."
        ]
        if clauses
        else []
    )


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def cautions(found: Versus, changed: Changes) -> list[str]:
    """What a reader must know before believing the table."""
    said = [*_apart(found)]
    for letter, x in (("A", found.a), ("B", found.b)):
        if x.origin.dirty:
            shown = ", ".join(x.origin.dirty[:3]) + (
                f" and {len(x.origin.dirty) - 3} more" if len(x.origin.dirty) > 3 else ""
            )
            said.append(f"{letter} has changes that are in no commit: {shown}.")
        said += [f"{letter}: {note}." for note in x.notes]
    if any("no manifest" in line.note for line in found.lines):
        said.append(
            "Of some sets a manifest is missing in A or B: their images are matched by name and "
            "label, their contents unchecked."
        )
    if changed.classes:
        a, b, both = changed.classes
        order = "; the order differs" if a == b == both else ""
        said.append(
            f"The models know different class lists: {a:,} in A, {b:,} in B, {both:,} in "
            f"both{order}. "
            "Only cells in which both chose among the same classes are judged."
        )
    devices = dict.fromkeys(c.devices for c in changed.costs if c.devices[0] != c.devices[1])
    if devices:
        shown = "; ".join(f"{a} and {b}" for a, b in devices)
        said.append(
            f"A and B were trained on different devices ({shown}): times and memory do not compare."
        )
    return said


def _apart(found: Versus) -> list[str]:
    """What only one of the two has."""
    a, b = found.a.plan, found.b.plan
    parts: list[str] = []
    for letter, own, other in (("A", a, b), ("B", b, a)):
        kinds = (
            ("mode", own.modes, other.modes),
            ("seed", own.seeds, other.seeds),
            ("set", own.datasets, other.datasets),
        )
        alone = [
            f"{kind}{'s'[: len(names) > 1]} {', '.join(names)}"
            for kind, mine, theirs in kinds
            if (names := [str(n) for n in mine if n not in theirs])
        ]
        if alone:
            parts.append(f"{'Only' if parts else 'only'} {letter} has {'; '.join(alone)}")
    return [f"Not compared: {'. '.join(parts)}."] if parts else []
