"""Summarise a comparison in sentences that the simultaneous intervals support."""

from collections import Counter
from collections.abc import Sequence

from densecl import paths
from densecl.analysis.differences import SHIFTED_MEAN
from densecl.analysis.results import BASELINE
from densecl.analysis.sampled_value import Estimate
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.compare.changes import CostChange, ExperimentChanges
from densecl.compare.differences import Call, Delta, ExperimentComparison
from densecl.cost.result import format_ratio
from densecl.pages.formatting import (
    clip_list,
    format_count,
    format_level,
    format_percent,
    format_points,
    join_names,
)
from densecl.report.sentences import describe_limits, describe_power, describe_scope

MAX_NAMED_CELLS = 3  # cells that the verdict names for each direction


def format_interval(estimate: Estimate) -> str:
    return f"[{format_points(estimate.low)}, {format_points(estimate.high)}]"


def format_verdict(comparison: ExperimentComparison) -> str:
    """One line: what is worse, what is better, and how many cells (dataset and mode) are
    undecided; where a stage is stale, only that.
    """
    if stale := describe_stale(comparison):
        return stale
    worse, better = comparison.select_by_call("worse"), comparison.select_by_call("better")
    counts = Counter(delta.call for delta in comparison.deltas if delta.dataset != SHIFTED_MEAN)
    labels: dict[Call, str] = {
        "open": "undecided",
        "identical": "identical",
        "unlike": "not judged: scored among different classes",
        "missing": "not comparable",
    }
    if worse or better:
        first, second = ("worse", "better") if worse else ("better", "worse")
        rest = f"on {_format_largest(comparison, better)}" if worse and better else "nowhere"
        clauses = [
            f"B is {first} than A on {_format_largest(comparison, worse or better)}",
            f"{second} {rest}",
        ]
    elif counts["open"]:
        clauses = [
            f"Undecided in {format_count(counts['open'], 'cell')}: B is not significantly better "
            f"or worse than A, and {describe_largest_fall(comparison)} is not excluded"
        ]
        del labels["open"]
    elif counts["identical"]:
        clauses = [
            f"No difference: A and B answered every image alike in "
            f"{format_count(counts['identical'], 'cell')}"
        ]
        del labels["identical"]
    else:
        clauses = ["Nothing could be judged"]
    clauses += [
        f"{format_count(n, 'cell')} {'is' if n == 1 else 'are'} {text}"
        for call, text in labels.items()
        if (n := counts[call])
    ]
    if partial := sum(any(delta.unmatched.values()) for delta in comparison.deltas):
        clauses.append(f"images are left out of {format_count(partial, 'cell')}")
    limits = describe_limits(_count_fewest_seeds(comparison), "what was changed")
    return " ".join([*limits, "; ".join(clauses) + "."])


def describe_stale(comparison: ExperimentComparison) -> str:
    """Which stages of A and B are stale; "" where none is."""
    sides = [
        f"in {letter}, {'; '.join(experiment.origin.stale)}"
        for letter, experiment in (("A", comparison.a), ("B", comparison.b))
        if experiment.origin.stale
    ]
    if not sides:
        return ""
    return (
        f"Not comparable: {paths.DVC_LOCK} was not made from the params, code and files beside it. "
        f"Stale: {'. Stale: '.join(sides)}. Run `dvc repro` there and commit {paths.DVC_LOCK}."
    )


def describe_largest_fall(comparison: ExperimentComparison) -> str:
    """The largest fall of an undecided row that its interval still allows."""
    rows = [d for d in comparison.select_by_call("open") if d.simultaneous]
    lowest = min(rows, key=lambda d: d.simultaneous.low if d.simultaneous else 0.0)
    fall = -lowest.simultaneous.low if lowest.simultaneous else 0.0
    return f"a fall of up to {format_percent(fall)} points ({_format_row(comparison, lowest)})"


def _format_row(comparison: ExperimentComparison, delta: Delta) -> str:
    """`sketch, dense: −7.1 [−14.2, 0.0]`, with the interval that holds for all rows at once."""
    interval = delta.simultaneous
    numbers = f": {format_points(interval.value)} {format_interval(interval)}" if interval else ""
    return f"{comparison.format_dataset(delta)}, {delta.mode}{numbers}"


def _format_largest(comparison: ExperimentComparison, deltas: Sequence[Delta]) -> str:
    """The largest differences first, the shifted mean before all."""
    order = sorted(
        deltas,
        key=lambda line: (
            line.dataset != SHIFTED_MEAN,
            -abs(line.simultaneous.value if line.simultaneous else 0),
        ),
    )
    texts = [
        f"{comparison.format_dataset(delta)} ({delta.mode}: "
        f"{format_points(delta.simultaneous.value)} "
        f"{format_interval(delta.simultaneous)})"
        for delta in order[:MAX_NAMED_CELLS]
        if delta.simultaneous
    ]
    rest = [f"{len(order) - MAX_NAMED_CELLS} more"] if len(order) > MAX_NAMED_CELLS else []
    return join_names([*texts, *rest])


def build_sentences(comparison: ExperimentComparison, changes: ExperimentChanges) -> list[str]:
    """Sentences below the verdict: differences that can be excluded, scope, and cost."""
    return [
        *_describe_power(comparison),
        *_describe_scope(comparison),
        *_describe_levels(comparison),
        *_describe_costs(changes.costs),
    ]


def _describe_levels(comparison: ExperimentComparison) -> list[str]:
    a, b = (format_level(side.report_params.confidence) for side in (comparison.a, comparison.b))
    return [] if a == b else [f"Judged at A's confidence level, {a} %; B sets {b} %."]


def _describe_power(comparison: ExperimentComparison) -> list[str]:
    deltas = comparison.select_by_call("open")
    values = [delta.detectable for delta in deltas if delta.detectable is not None]
    who, fewest = "A and B do not differ significantly", _count_fewest_seeds(comparison)
    return describe_power(who, values, fewest, " (by cell)")


def _count_fewest_seeds(comparison: ExperimentComparison) -> int:
    """Of the cells that are tested; 0 if there are none."""
    judged = comparison.select_by_call("better", "worse", "open")
    return min((len(delta.seeds) for delta in judged), default=0)


def _describe_scope(comparison: ExperimentComparison) -> list[str]:
    """State whether the results apply to the modes or only to these models, by the number of
    seeds.
    """
    judged = comparison.select_by_call("better", "worse", "open")
    few = {delta.mode for delta in judged if len(delta.seeds) < SEEDS_FOR_MODE}
    groups = [[d for d in judged if (d.mode in few) == is_few] for is_few in (False, True)]
    sentences = []
    for deltas in filter(None, groups):
        seeds = list(dict.fromkeys(delta.seeds for delta in deltas))
        counts = sorted(map(len, seeds))
        is_one = len(seeds) == 1 and counts == [1]
        span = " to ".join(dict.fromkeys(map(str, (counts[0], counts[-1]))))
        number = f"one seed ({seeds[0][0]})" if is_one else f"{span} common seeds"
        modes = join_names(list(dict.fromkeys(delta.mode for delta in deltas)))
        names = f"{number} of {modes}"
        sentences.append(describe_scope(counts[0], names, "as A and as B", "what was changed"))
    return sentences


def _describe_costs(costs: Sequence[CostChange]) -> list[str]:
    """Relative costs only, since machines and their load may differ."""
    clauses = [
        f"{c.mode} {format_ratio(c.a.against_none)} × in A and "
        f"{format_ratio(c.b.against_none)} × in B"
        for c in costs
        if c.measured and not c.is_same_run and c.mode != BASELINE
    ]
    return (
        [
            f"A training step took, against classification only in the same process: "
            f"{'; '.join(clauses)}."
        ]
        if clauses
        else []
    )


def list_caveats(comparison: ExperimentComparison, changes: ExperimentChanges) -> list[str]:
    """Caveats of the table."""
    caveats = [*_describe_unshared(comparison), *_describe_guessing(comparison)]
    for letter, experiment in (("A", comparison.a), ("B", comparison.b)):
        if experiment.origin.dirty:
            files = clip_list(experiment.origin.dirty, 3)
            caveats.append(f"{letter} has changes that are in no commit: {files}.")
        caveats += [f"{letter}: {note}." for note in experiment.notes]
    if any("no manifest" in delta.note for delta in comparison.deltas):
        caveats.append(
            "For some datasets a manifest is missing in A or B: their images are matched by name "
            "and label, and their contents are unchecked."
        )
    if changes.classes:
        a, b, both = changes.classes
        order = "; the order differs" if a == b == both else ""
        caveats.append(
            f"The models know different class lists: {a:,} in A, {b:,} in B, {both:,} in "
            f"both{order}. "
            "Only cells in which both chose among the same classes are judged."
        )
    devices = dict.fromkeys(c.devices for c in changes.costs if c.devices[0] != c.devices[1])
    if devices:
        text = "; ".join(f"{a} and {b}" for a, b in devices)
        caveats.append(
            f"The cost of A and B was measured on different devices ({text}): seconds and memory "
            "do not compare."
        )
    return caveats


def describe_chance(delta: Delta) -> str:
    """`A and B at chance (8.3 %)`; "" where both are shown to be better than guessing."""
    if not delta.at_chance:
        return ""
    return f"{' and '.join(delta.at_chance)} at chance ({format_percent(delta.chance)} %)"


def _describe_guessing(comparison: ExperimentComparison) -> list[str]:
    cells = [
        f"{comparison.format_dataset(delta)} ({delta.mode}: {' and '.join(delta.at_chance)})"
        for delta in comparison.deltas
        if delta.at_chance
    ]
    return (
        [
            "At chance, not shown to be better than guessing: "
            f"{clip_list(cells, MAX_NAMED_CELLS)}. Where both are, their difference says nothing."
        ]
        if cells
        else []
    )


def _describe_unshared(comparison: ExperimentComparison) -> list[str]:
    """Cells that only one experiment has."""
    a, b = comparison.a.plan, comparison.b.plan
    clauses: list[str] = []
    for letter, plan, other_plan in (("A", a, b), ("B", b, a)):
        unshared = [
            f"{kind}{'s'[: len(names) > 1]} {', '.join(names)}"
            for kind, key in (("mode", "modes"), ("seed", "seeds"), ("set", "datasets"))
            if (names := [str(n) for n in getattr(plan, key) if n not in getattr(other_plan, key)])
        ]
        if unshared:
            clauses.append(f"{'Only' if clauses else 'only'} {letter} has {'; '.join(unshared)}")
    return [f"Not compared: {'. '.join(clauses)}."] if clauses else []
