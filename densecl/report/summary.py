"""The answer in sentences that claim no more than intervals and corrected p-values allow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean

from densecl.analysis.comparison import (
    BASELINE,
    SHIFTED_MEAN,
    Comparison,
    MetricRow,
    get_significance,
)
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import TrainingCost
from densecl.config.params import CONTROL_SET, Mode
from densecl.pages.formatting import capitalize_first, format_percent, join_names

Costs = Mapping[str, Sequence[TrainingCost]]  # mode -> one a seed
MAX_NAMED_SETS = 3  # sets that a sentence names for each direction, the largest differences first
# docs/evaluation.md
SEED_NOISE = "0.1 to 0.5 points of top-1 in published ImageNet runs, many times that in small ones"
COST_TOLERANCE = 0.02  # of the step time: less is the clock's noise


def describe_results(comparison: Comparison, costs: Costs | None = None) -> list[str]:
    """The headline, then what limits it."""
    return [*build_headline(comparison, costs or {}), *build_details(comparison)]


def build_headline(comparison: Comparison, costs: Costs) -> list[str]:
    """Two sentences: which mode beats which, where, by how much [interval], and at what cost in
    time.
    """
    modes = comparison.plan.modes
    if len(modes) == 1:
        return [
            f"There is only the mode {modes[0]}, so there is nothing to compare. "
            f"{_describe_single_mode(comparison)}".strip()
        ]
    baseline = _select_baseline(comparison)
    compared_modes = [a for a, b in comparison.pairs if b == baseline]
    verdicts = {a: describe_verdict(comparison, a, baseline) for a in compared_modes}
    if not any(verdicts.values()):
        return [
            "No set was evaluated for two modes alike, so they cannot be compared; the missing "
            "cells are listed below."
        ]
    if (
        baseline != BASELINE
    ):  # the times are taken beside classification alone, which is neither of the two
        cost_text = f"{_format_cost(compared_modes[0], costs)} and {_format_cost(baseline, costs)}"
        return [f"{verdicts[compared_modes[0]]}.", f"Beside classification alone, {cost_text}."]
    if len(compared_modes) == 1:
        return [
            f"{verdicts[compared_modes[0]]}.",
            f"{capitalize_first(_format_cost(compared_modes[0], costs))}.",
        ]
    clauses = {
        a: text or f"{capitalize_first(a)} and {baseline} have no set and seed in common"
        for a, text in verdicts.items()
    }
    decided = {
        a: any(
            get_significance(comparison, s, a, baseline)
            for s in (SHIFTED_MEAN, *comparison.plan.datasets)
        )
        for a in compared_modes
    }
    return [
        f"{text}; {_format_cost(a, costs, 'it' if decided[a] else a)}."
        for a, text in clauses.items()
    ]


def build_details(comparison: Comparison) -> list[str]:
    """What the seeds allow to say, the pairs that the headline leaves out, and what the tests would
    have missed.
    """
    if len(comparison.plan.modes) == 1:
        return []
    other_pairs = [
        (a, b) for a, b in comparison.pairs if b not in (BASELINE, _select_baseline(comparison))
    ]
    sentences = [f"{text}." for a, b in other_pairs if (text := describe_verdict(comparison, a, b))]
    return [*_describe_scope(comparison), *sentences, *_describe_power(comparison)]


def _select_baseline(comparison: Comparison) -> Mode:
    """What the headline puts the others beside: none; the next simpler mode, where nothing was
    evaluated together with none.
    """
    return next(
        (b for a, b in comparison.pairs if describe_verdict(comparison, a, b)),
        comparison.pairs[0][1],
    )


def describe_verdict(comparison: Comparison, mode: Mode, baseline: Mode) -> str:
    """What the tests say of two modes, without a full stop; "" where no set has both."""
    tested = [
        s
        for s in (SHIFTED_MEAN, *comparison.plan.datasets)
        if _is_tested(comparison, s, mode, baseline)
    ]
    if not tested:
        return ""
    seeds = _count_seeds(comparison, tested, mode, baseline)
    subject, baseline_subject = _format_subject(mode, seeds), _format_subject(baseline, seeds)
    groups = {
        sign: [s for s in tested if get_significance(comparison, s, mode, baseline) == sign]
        for sign in (1, -1)
    }
    clauses, object_ = [], baseline_subject
    for sign in sorted(
        groups, key=lambda sign: groups[sign] != [] and SHIFTED_MEAN not in groups[sign]
    ):
        if groups[sign]:
            clauses.append(
                f"{_select_verb(sign, seeds)} {object_} "
                f"{join_names(list(_iter_places(comparison, groups[sign], mode, baseline)))}"
            )
            object_ = "it" if seeds == 1 or seeds >= SEEDS_FOR_MODE else "them"
    if not clauses:
        return (
            f"{capitalize_first(subject)} and {baseline_subject} do not differ significantly "
            f"{_format_tested_sets(comparison, tested)}"
        )
    undecided = len(tested) - sum(map(len, groups.values()))
    return f"{capitalize_first(subject)} {join_names(clauses)}" + (
        "; no other difference between the two is statistically significant" if undecided else ""
    )


def _is_tested(comparison: Comparison, dataset: str, mode: str, baseline: str) -> bool:
    row = comparison.get_row(dataset, mode, f"difference_to_{baseline}")
    return row is not None and row.value is not None


def _count_seeds(comparison: Comparison, tested: Sequence[str], mode: str, baseline: str) -> int:
    """The fewest seeds behind any of the differences."""
    rows = [comparison.get_row(s, mode, f"difference_to_{baseline}") for s in tested]
    return min(len(row.seeds.split()) for row in rows if row)


def _format_subject(mode: str, seeds: int) -> str:
    """Modes are spoken of from three seeds on; before, these models."""
    return mode if seeds >= SEEDS_FOR_MODE else f"the {mode} model{'s' if seeds > 1 else ''}"


def _select_verb(sign: int, seeds: int) -> str:
    plural = 1 < seeds < SEEDS_FOR_MODE
    return (
        ("beat" if sign > 0 else "fall behind")
        if plural
        else ("beats" if sign > 0 else "falls behind")
    )


def _iter_places(
    comparison: Comparison, datasets: Sequence[str], mode: str, baseline: str
) -> Iterator[str]:
    """The mean, then the largest differences; how many more there are."""
    rows: dict[str, MetricRow] = {
        s: row
        for s in datasets
        if (row := comparison.get_row(s, mode, f"difference_to_{baseline}"))
    }
    largest = sorted((s for s in rows if s != SHIFTED_MEAN), key=lambda s: -abs(rows[s].value or 0))
    for s in ([SHIFTED_MEAN] if SHIFTED_MEAN in rows else []) + [
        s for s in comparison.plan.datasets if s in largest[:MAX_NAMED_SETS]
    ]:
        yield f"by {_format_difference(rows[s])} {_format_place(comparison, s)}"
    if len(largest) > MAX_NAMED_SETS:
        yield (
            f"on {len(largest) - MAX_NAMED_SETS} further "
            f"set{'s'[: len(largest) - MAX_NAMED_SETS != 1]}"
        )


def _format_place(comparison: Comparison, dataset: str) -> str:
    if dataset != SHIFTED_MEAN:
        return f"on {dataset}"
    return (
        f"on average over {len(comparison.complete_sets)} shifted "
        f"set{'s'[: len(comparison.complete_sets) != 1]}"
    )


def _format_difference(row: MetricRow) -> str:
    """Size and interval, both counted in the direction of the difference."""
    value, low, high = row.value or 0.0, row.low or 0.0, row.high or 0.0
    low, high = (low, high) if value > 0 else (-high, -low)
    return f"{format_percent(abs(value))} points [{format_percent(low)}, {format_percent(high)}]"


def _format_tested_sets(comparison: Comparison, tested: Sequence[str]) -> str:
    datasets = [s for s in tested if s != SHIFTED_MEAN]
    text = f"on any of {len(datasets)} sets" if len(datasets) != 1 else f"on {datasets[0]}"
    return text + (
        f", nor {_format_place(comparison, SHIFTED_MEAN)}" if SHIFTED_MEAN in tested else ""
    )


def _format_cost(mode: str, costs: Costs, name: str = "") -> str:
    """Time of a training step beside that of classification alone on the same two views, measured
    in one process.
    """
    mode_costs = costs.get(mode, [])
    if not mode_costs:
        return f"what {mode} cost is not known: no cost.json was found"
    extra = fmean(c.step_seconds / c.none_step_seconds for c in mode_costs) - 1
    if abs(extra) < COST_TOLERANCE:
        return f"{name or mode} cost no more time"
    return f"{name or mode} cost {abs(100 * extra):.0f} % {'more' if extra > 0 else 'less'} time"


def _describe_single_mode(comparison: Comparison) -> str:
    scope = SHIFTED_MEAN if comparison.complete_sets else CONTROL_SET
    row = comparison.get_row(scope, comparison.plan.modes[0], "top1")
    return (
        ""
        if row is None or row.value is None
        else f"{capitalize_first(_format_place(comparison, scope))}, it has "
        f"a top-1 of {format_percent(row.value)} %."
    )


def _describe_power(comparison: Comparison) -> list[str]:
    """Power of the tests that found no significant difference."""
    scope = SHIFTED_MEAN if comparison.complete_sets else CONTROL_SET
    undecided = [
        (a, b) for a, b in comparison.pairs if not get_significance(comparison, scope, a, b)
    ]
    rows = [comparison.get_row(scope, a, f"difference_to_{b}_detectable") for a, b in undecided]
    values = [row.value for row in rows if row and row.value is not None]
    if not values:
        return []
    return [
        f"Where two modes do not differ significantly {_format_place(comparison, scope)}, the test "
        f"has 80 % power to detect a difference of {format_percent(max(values))} points; smaller "
        "ones may have gone undetected."
    ]


def _describe_scope(comparison: Comparison) -> list[str]:
    """Whether this speaks of models or of modes: by the fewest seeds of any difference."""
    counts = [
        _count_seeds(comparison, tested, a, b)
        for a, b in comparison.pairs
        if (tested := [s for s in comparison.plan.datasets if _is_tested(comparison, s, a, b)])
    ]
    if not counts:
        return []
    fewest, planned = min(counts), comparison.plan.seeds
    if fewest >= SEEDS_FOR_MODE:
        return [
            f"From {fewest} seeds, so this speaks of the modes, trained this way on this data; the "
            f"intervals cover new seeds "
            "and new images."
        ]
    names = (
        f"one seed{f' ({planned[0]})' if len(planned) == 1 else ''}"
        if fewest == 1
        else f"{fewest} seeds"
    )
    return [
        f"From {names}, so this speaks of these models, not of the modes: the intervals do not "
        f"cover the noise between "
        f"seeds ({SEED_NOISE}); another seed may order the modes differently."
    ]
