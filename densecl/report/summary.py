"""Summarise the results in sentences that the intervals and corrected p-values support."""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import pandas as pd

from densecl import paths
from densecl.analysis.comparison import BASELINE, SHIFTED_MEAN, Comparison, get_significance
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import ReportPlan
from densecl.config.params import CONTROL_SET, ContrastParams, Mode
from densecl.cost.result import CostReport
from densecl.pages.formatting import capitalize_first, format_count, format_percent, join_names
from densecl.report.sentences import describe_power, describe_scope

MAX_NAMED_SETS = 3  # datasets that a sentence names per direction, largest differences first
# What matches are found on -> its name in history.csv; on the crops' geometry nothing is learned.
MATCHING_FEATURES = {"dense": "dense", "backbone": "last"}


def build_headline(comparison: Comparison, cost: CostReport | None) -> list[str]:
    """Two sentences: which mode is better, where, by how much [interval], and at what cost in
    time.
    """
    modes = comparison.plan.modes
    if len(modes) == 1:
        return [
            f"There is only the mode {modes[0]}, so there is nothing to compare. "
            f"{_describe_single_mode(comparison)}".strip()
        ]
    baseline = _select_baseline(comparison)
    verdicts = {
        a: describe_verdict(comparison, a, b) for a, b in comparison.mode_pairs if b == baseline
    }
    if not any(verdicts.values()):
        return [
            "No set was evaluated for two modes alike, so they cannot be compared; the missing "
            "cells are listed below."
        ]
    first = next(iter(verdicts))
    if baseline != BASELINE:
        # The times are taken beside classification alone, which is neither of the two.
        cost_text = f"{_format_cost(first, cost)} and {_format_cost(baseline, cost)}"
        return [f"{verdicts[first]}.", f"Beside classification alone, {cost_text}."]
    if len(verdicts) == 1:
        return [f"{verdicts[first]}.", f"{capitalize_first(_format_cost(first, cost))}."]
    sentences = []
    for mode, verdict in verdicts.items():
        absent = f"{capitalize_first(mode)} and {baseline} have no set and seed in common"
        decided = any(
            get_significance(comparison, s, mode, baseline)
            for s in (SHIFTED_MEAN, *comparison.plan.datasets)
        )
        sentences.append(
            f"{verdict or absent}; {_format_cost(mode, cost, 'it' if decided else mode)}."
        )
    return sentences


def build_details(comparison: Comparison) -> list[str]:
    """What the seeds allow to conclude, pairs that the headline omits, and the power of the
    tests.
    """
    if len(comparison.plan.modes) == 1:
        return []
    other_pairs = [
        (a, b)
        for a, b in comparison.mode_pairs
        if b not in (BASELINE, _select_baseline(comparison))
    ]
    sentences = [f"{text}." for a, b in other_pairs if (text := describe_verdict(comparison, a, b))]
    return [*_describe_scope(comparison), *sentences, *_describe_power(comparison)]


def _select_baseline(comparison: Comparison) -> Mode:
    """The mode that others are compared with: none, or the next simpler mode if nothing was
    evaluated together with none.
    """
    compared = [b for a, b in comparison.mode_pairs if _list_tested(comparison, a, b)]
    return compared[0] if compared else comparison.mode_pairs[0][1]


def _list_tested(comparison: Comparison, mode: str, baseline: str) -> list[str]:
    """The shifted mean and the datasets for which the two modes have a difference."""
    datasets = (SHIFTED_MEAN, *comparison.plan.datasets)
    return [s for s in datasets if comparison.get_difference(s, mode, baseline)]


def _count_seeds(comparison: Comparison, mode: str, baseline: str) -> int:
    """The smallest number of seeds of any difference."""
    rows = [
        comparison.get_difference(s, mode, baseline)
        for s in _list_tested(comparison, mode, baseline)
    ]
    return min((len(row.seeds.split()) for row in rows if row), default=0)


def describe_verdict(comparison: Comparison, mode: Mode, baseline: Mode) -> str:
    """Test results of two modes, without a full stop; "" if no dataset has both."""
    tested = _list_tested(comparison, mode, baseline)
    if not tested:
        return ""
    seeds = _count_seeds(comparison, mode, baseline)
    plural = 1 < seeds < SEEDS_FOR_MODE
    # Modes are spoken of from three seeds on; before, these models.
    subject, other = (
        name if seeds >= SEEDS_FOR_MODE else f"the {name} model{'s' if plural else ''}"
        for name in (mode, baseline)
    )
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for s in tested:
        groups[get_significance(comparison, s, mode, baseline)].append(s)
    verbs = {1: "beat" if plural else "beats", -1: "fall behind" if plural else "falls behind"}
    clauses, object_ = [], other
    for sign in sorted(verbs, key=lambda sign: SHIFTED_MEAN not in groups[sign]):
        if groups[sign]:
            places = _list_places(comparison, groups[sign], mode, baseline)
            clauses.append(f"{verbs[sign]} {object_} {join_names(places)}")
            object_ = "them" if plural else "it"
    if not clauses:
        datasets = [s for s in tested if s != SHIFTED_MEAN]
        names = f"any of {len(datasets)} datasets" if len(datasets) != 1 else datasets[0]
        mean = f", nor {_format_place(comparison, SHIFTED_MEAN)}" if SHIFTED_MEAN in tested else ""
        return (
            f"{capitalize_first(subject)} and {other} do not differ significantly on {names}{mean}"
        )
    return f"{capitalize_first(subject)} {join_names(clauses)}" + (
        "; no other difference between the two is statistically significant" if groups[0] else ""
    )


def _list_places(
    comparison: Comparison, datasets: Sequence[str], mode: str, baseline: str
) -> list[str]:
    """The mean, then the largest differences, each with its interval in the direction of the
    difference; how many more there are.
    """
    rows = {s: row for s in datasets if (row := comparison.get_difference(s, mode, baseline))}
    largest = sorted((s for s in rows if s != SHIFTED_MEAN), key=lambda s: -abs(rows[s].value or 0))
    places = []
    for s, row in rows.items():
        if s == SHIFTED_MEAN or s in largest[:MAX_NAMED_SETS]:
            value, low, high = row.value or 0.0, row.low or 0.0, row.high or 0.0
            low, high = (low, high) if value > 0 else (-high, -low)
            places.append(
                f"by {format_percent(abs(value))} points "
                f"[{format_percent(low)}, {format_percent(high)}] "
                f"{_format_place(comparison, s)}"
            )
    more = len(largest) - MAX_NAMED_SETS
    return [*places, *([f"on {format_count(more, 'further set')}"] if more > 0 else [])]


def _format_place(comparison: Comparison, dataset: str) -> str:
    if dataset != SHIFTED_MEAN:
        return f"on {dataset}"
    return f"on average over {format_count(len(comparison.complete_sets), 'shifted set')}"


def _format_cost(mode: str, cost: CostReport | None, name: str = "") -> str:
    """Step time relative to classification alone on the same two views, with its interval."""
    if cost is None or mode not in cost.modes:
        return f"what {mode} costs is not known: {paths.COST} is missing"
    if not cost.is_measured:
        return f"what {mode} costs could not be measured"
    ratio = cost.modes[mode].against_none
    low, high = sorted(100 * abs((end or 0) - 1) for end in (ratio.low, ratio.high))
    if ratio.contains(1.0):
        return f"{name or mode} cost no more time, within {math.ceil(high)} %"
    extra, kind = abs(100 * (ratio.value - 1)), "more" if ratio.value > 1 else "less"
    return f"{name or mode} cost {extra:.0f} % [{low:.0f}, {high:.0f}] {kind} time"


def _get_scope(comparison: Comparison) -> str:
    return SHIFTED_MEAN if comparison.complete_sets else CONTROL_SET


def _describe_single_mode(comparison: Comparison) -> str:
    scope = _get_scope(comparison)
    row = comparison.get_row(scope, comparison.plan.modes[0], "top1")
    if row is None or row.value is None:
        return ""
    place = capitalize_first(_format_place(comparison, scope))
    return f"{place}, it has a top-1 of {format_percent(row.value)} %."


def _describe_power(comparison: Comparison) -> list[str]:
    """Power of the tests that found no significant difference."""
    scope = _get_scope(comparison)
    rows = [
        comparison.get_row(scope, a, f"difference_to_{b}_detectable")
        for a, b in comparison.mode_pairs
        if not get_significance(comparison, scope, a, b)
    ]
    values = [row.value for row in rows if row and row.value is not None]
    who = f"two modes do not differ significantly {_format_place(comparison, scope)}"
    return describe_power(who, [max(values)] if values else [])


def _describe_scope(comparison: Comparison) -> list[str]:
    """State whether results apply to modes or only to these models, by the smallest number of
    seeds.
    """
    counts = [_count_seeds(comparison, a, b) for a, b in comparison.mode_pairs]
    fewest = min(filter(None, counts), default=0)
    planned = comparison.plan.seeds
    if not fewest:
        return []
    names = f"one seed ({planned[0]})" if len(planned) == 1 else "one seed"
    return [describe_scope(fewest, names if fewest == 1 else f"{fewest} seeds")]


def check_learned_position(
    plan: ReportPlan, histories: Mapping[str, list[pd.DataFrame]]
) -> list[str]:
    """Warn if dense matches of flipped or shifted views are no better than matching by position."""
    mode_contrast = _parse_contrast(plan).resolve_mode("dense")
    name = MATCHING_FEATURES.get(getattr(mode_contrast, "correspondence_features", ""), "")
    columns = [f"match/{name}/moved0", "match/identity/moved0"]
    final_values = [
        frame[columns].iloc[-1]
        for frame in histories.get("dense", [])
        if {*columns} <= {*frame.columns}
    ]
    worse = [(match, identity) for match, identity in final_values if match <= identity]
    if not worse:
        return []
    match_rate, identity_rate = (fmean(values) for values in zip(*worse, strict=True))
    share_text = (
        f" in {len(worse)} of {len(final_values)} trainings" if len(final_values) > 1 else ""
    )
    return [
        f"Matching has learned position, not content{share_text}: of flipped or shifted views "
        f"{format_percent(match_rate)} % of the patches "
        f"are matched to their true place, and {format_percent(identity_rate)} % by the same index."
    ]


def describe_probed_modes(plan: ReportPlan) -> list[str]:
    contrast = _parse_contrast(plan)
    return [
        f"{m} trained no classifier (lambda 1): a linear probe on its frozen features is evaluated."
        for m in plan.modes
        if (mode_contrast := contrast.resolve_mode(m)) and mode_contrast.lambda_weight == 1
    ]


def _parse_contrast(plan: ReportPlan) -> ContrastParams:
    return ContrastParams.model_validate_json(json.dumps(plan.params.get("contrast", {})))
