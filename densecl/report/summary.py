"""Summarise the results in sentences that the simultaneous intervals support."""

import json
import math
from collections.abc import Mapping
from statistics import fmean

import pandas as pd

from densecl import paths
from densecl.analysis.comparison import (
    BASELINE,
    SHIFTED_MEAN,
    Comparison,
    get_significance,
)
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.artifacts import ReportPlan
from densecl.config.params import CONTROL_SET, ContrastParams, Mode
from densecl.cost.result import CostReport
from densecl.pages.formatting import (
    capitalize_first,
    format_percent,
    join_names,
)
from densecl.report.sentences import describe_limits, describe_power, describe_scope
from densecl.report.verdicts import (
    count_fewest_seeds,
    describe_verdict,
    format_place,
    list_tested,
)

# What matches are found on -> its name in history.csv; on the crops' geometry nothing is learned.
MATCHING_FEATURES = {"dense": "dense", "backbone": "last"}


def build_headline(comparison: Comparison, cost: CostReport | None) -> list[str]:
    """Sentences: what cannot be concluded from so few seeds, which mode is better, where, by how
    much [simultaneous interval], and at what cost in time.
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
    limits = describe_limits(count_fewest_seeds(comparison), "the modes")
    first = next(iter(verdicts))
    if baseline != BASELINE:
        # The times are taken beside classification alone, which is neither of the two.
        cost_text = f"{_format_cost(first, cost)} and {_format_cost(baseline, cost)}"
        return [*limits, f"{verdicts[first]}.", f"Beside classification alone, {cost_text}."]
    if len(verdicts) == 1:
        return [
            *limits,
            f"{verdicts[first]}.",
            f"{capitalize_first(_format_cost(first, cost))}.",
        ]
    absent = f"and {baseline} have no set and seed in common"
    return limits + [
        f"{verdict or f'{capitalize_first(mode)} {absent}'}; {_format_cost(mode, cost)}."
        for mode, verdict in verdicts.items()
    ]


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
    compared = [b for a, b in comparison.mode_pairs if list_tested(comparison, a, b)]
    return compared[0] if compared else comparison.mode_pairs[0][1]


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


def _describe_single_mode(comparison: Comparison) -> str:
    scope = SHIFTED_MEAN if comparison.complete_sets else CONTROL_SET
    mode, seeds = comparison.plan.modes[0], comparison.plan.seeds
    row = comparison.get_row(scope, mode, "top1")
    if row is None or row.value is None:
        return ""
    few = len(seeds) < SEEDS_FOR_MODE
    subject = join_names([f"{mode}-{seed}" for seed in seeds]) if few else mode
    place = capitalize_first(format_place(comparison, scope))
    return f"{place}, {subject} has a top-1 of {format_percent(row.value)} %."


def _describe_power(comparison: Comparison) -> list[str]:
    """Power of the tests of the first screen that found no significant difference."""
    rows = [
        comparison.get_row(place, a, f"difference_to_{b}_detectable")
        for a, b in comparison.mode_pairs
        for place in comparison.judged_places
        if not get_significance(comparison, place, a, b)
    ]
    values = [row.value for row in rows if row and row.value is not None]
    places = comparison.judged_places
    where = f" {format_place(comparison, places[0])}" if len(places) == 1 else ""
    who = f"two modes do not differ significantly{where}"
    return describe_power(who, values, count_fewest_seeds(comparison))


def _describe_scope(comparison: Comparison) -> list[str]:
    """State whether results apply to modes or only to these models, by the smallest number of
    seeds.
    """
    fewest, planned = count_fewest_seeds(comparison), comparison.plan.seeds
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
