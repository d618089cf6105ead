"""The sentences at the top of the page: which mode is better at what, or that this run cannot tell
and what it would take; and the cost.
"""

import math

from densecl.analysis.claims import Claim, Pair, list_claim_tests, list_claims, list_pairs
from densecl.analysis.comparison import SHIFTED_MEAN, Comparison
from densecl.analysis.needed import MAX_IMAGES_FACTOR, MAX_SEEDS
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.config.params import CONTROL_SET
from densecl.cost.result import StepRatio
from densecl.pages.formatting import (
    capitalize_first,
    format_count,
    format_percent,
    format_points,
    join_names,
)
from densecl.report.claims import compare_claimed_cost, explain_missing_cost
from densecl.report.verdicts import (
    AT_CHANCE,
    OPEN,
    WORDS,
    Seeds,
    describe_few_seeds,
    format_factor,
    group_by_seeds,
    judge_claim,
    list_seeds,
    name_claims,
    name_subject,
)

Verdicts = dict[str, str]  # of the first mode against each other one
TIME = " time per training step"


def build_headline(comparison: Comparison) -> list[str]:
    """Short sentences, without the intervals, which the table below them has."""
    modes, variants = comparison.plan.main_modes, comparison.plan.variants
    if len(modes) == 1 and variants:
        return [*_describe_variants(comparison), *filter(None, [_describe_single_mode(comparison)])]
    if len(modes) == 1:
        return [
            f"There is only the mode {modes[0]}, so there is nothing to compare. "
            f"{_describe_single_mode(comparison)}".strip()
        ]
    if not list_claim_tests(comparison):
        return [
            "No set was evaluated for two modes alike, so they cannot be compared; the missing "
            "cells are listed below."
        ]
    return [
        *describe_few_seeds(comparison),
        *_describe_claims(comparison),
        *_describe_cost(comparison),
    ]


def judge_claims(comparison: Comparison) -> dict[Claim, Verdicts]:
    """Verdicts of all claims that could be tested."""
    verdicts = {
        claim: {
            b: said
            for a, b in list_pairs(comparison)
            if (said := judge_claim(comparison, claim, (a, b)))
        }
        for claim in list_claims(comparison)
    }
    return {claim: said for claim, said in verdicts.items() if said}


def _describe_claims(comparison: Comparison) -> list[str]:
    verdicts = judge_claims(comparison)
    decided = {
        claim: said for claim, said in verdicts.items() if {*said.values()} - {OPEN, AT_CHANCE}
    }
    sentences = [
        sentence
        for claim, said in decided.items()
        for sentence in _describe_decided(comparison, claim, said)
    ]
    undecided = [
        claim for claim, said in verdicts.items() if claim not in decided and OPEN in said.values()
    ]
    at_chance = [c for c in verdicts if c not in decided and c not in undecided]
    clauses = []
    if undecided:
        clauses.append(
            f"not decided at this size: {name_claims(undecided)}"
            if decided
            else _describe_undecided(comparison)
        )
    clauses += [f"too close to guessing to compare: {name_claims(at_chance)}"] if at_chance else []
    rest = [f"{capitalize_first('; '.join(clauses))}."] if clauses else []
    return [*sentences, *rest, *(_describe_nearest(comparison) if not decided else [])]


def _describe_variants(comparison: Comparison) -> list[str]:
    """What the table of variants calls; nothing else is compared where there is one mode."""
    verdicts, sentences = [], []
    for variant, base in comparison.variant_pairs:
        for claim in list_claims(comparison):
            verdict = judge_claim(comparison, claim, (variant, base))
            verdicts.append(verdict)
            if verdict in (WORDS[1], WORDS[-1]):
                seeds = list_seeds(comparison, claim.place, (variant, base))
                said = {base: verdict}
                sentences.append(_describe_group(comparison, claim, variant, seeds, said))
    if not any(verdicts):
        return ["No variant was measured as its base was, so they cannot be compared."]
    if not sentences:
        return [f"This run cannot tell {_name_variants(comparison)} on any claim."]
    if OPEN in verdicts:
        sentences.append("No other claim is decided at this size.")
    return sentences


def _name_variants(comparison: Comparison) -> str:
    pairs = comparison.variant_pairs
    return " from ".join(pairs[0]) if len(pairs) == 1 else "any variant from its base"


def _describe_decided(comparison: Comparison, claim: Claim, verdicts: Verdicts) -> list[str]:
    """`Under occlusion, dense beats none (+2.1 points) and cannot be told from global.`; a sentence
    per group of pairs that were taken of the same seeds.
    """
    mode = list_pairs(comparison)[0][0]
    groups: dict[str, tuple[Seeds, Verdicts]] = {}
    for other, said in verdicts.items():
        seeds = list_seeds(comparison, claim.place, (mode, other))
        groups.setdefault(name_subject(mode, seeds), (seeds, {}))[1][other] = said
    return [
        _describe_group(comparison, claim, mode, seeds, said) for seeds, said in groups.values()
    ]


def _describe_group(
    comparison: Comparison, claim: Claim, mode: str, seeds: Seeds, verdicts: Verdicts
) -> str:
    subject = name_subject(mode, seeds)
    plural = "/" in subject
    verbs = {
        WORDS[1]: "beat" if plural else "beats",
        WORDS[-1]: "fall behind" if plural else "falls behind",
    }
    clauses, unit = [], " points"
    for verdict, verb in verbs.items():
        named = []
        for other in (b for b, said in verdicts.items() if said == verdict):
            row = comparison.get_difference(claim.place, mode, other)
            points = format_points((row and row.value) or 0.0)
            named.append(f"{name_subject(other, seeds)} ({points}{unit})")
            unit = ""
        clauses += [f"{verb} {join_names(named)}"] if named else []
    rest = {
        verdict: [name_subject(b, seeds) for b, said in verdicts.items() if said == verdict]
        for verdict in (OPEN, AT_CHANCE)
    }
    clauses += [f"cannot be told from {join_names(rest[OPEN])}"] if rest[OPEN] else []
    at_chance = (
        f"{subject} and {join_names(rest[AT_CHANCE])} are too close to guessing to compare"
        if rest[AT_CHANCE]
        else ""
    )
    said = "; ".join(filter(None, (f"{subject} {join_names(clauses)}" * bool(clauses), at_chance)))
    return f"{capitalize_first(claim.phrase)}, {said}."


def _describe_undecided(comparison: Comparison) -> str:
    """A clause per group of differences that were taken of the same seeds."""
    groups: dict[str, tuple[Seeds, list[tuple[Claim, Pair]]]] = {}
    for seeds, tests in group_by_seeds(comparison).items():
        undecided = [(c, pair) for c, pair in tests if judge_claim(comparison, c, pair) == OPEN]
        if undecided:
            subject = name_subject(undecided[0][1][0], seeds)
            groups.setdefault(subject, (seeds, []))[1].extend(undecided)
    clauses = []
    for subject, (seeds, tests) in groups.items():
        pairs = [pair for pair in list_pairs(comparison) if pair in [p for _, p in tests]]
        others = " or ".join(name_subject(b, seeds) for _, b in pairs)
        claims = list(dict.fromkeys(claim for claim, _ in tests))
        place = _name_places(comparison, claims) if len(groups) == 1 else name_claims(claims)
        clauses.append(f"{subject} from {others} on {place}")
    return f"this run cannot tell {', or '.join(clauses)}"


def _name_places(comparison: Comparison, claims: list[Claim]) -> str:
    is_dataset = claims[0].is_dataset
    judged = len(judge_claims(comparison))
    if len(claims) > 1:
        noun = "datasets" if is_dataset else "measures of robustness and features"
        return f"any of {'the ' * (len(claims) == judged)}{len(claims)} {noun}"
    if judged == 1:
        return f"the only {'dataset' if is_dataset else 'claim'} that was measured"
    return name_claims(claims)


def _describe_nearest(comparison: Comparison) -> list[str]:
    """The undecided difference that the fewest seeds would call; where all have fewer than three
    seeds, whose spread is unknown, the fewest images.
    """
    undecided = [
        (claim, pair, len(seeds))
        for seeds, tests in group_by_seeds(comparison).items()
        for claim, pair in tests
        if judge_claim(comparison, claim, pair) == OPEN
    ]
    with_spread = [test for test in undecided if test[2] >= SEEDS_FOR_MODE]
    suffix = "seeds" if with_spread else "images"
    needed = {}
    for claim, (a, b), number in with_spread or undecided:
        row = comparison.get_row(claim.place, a, f"difference_to_{b}_needed_{suffix}")
        if row and row.value is not None:
            difference = comparison.get_difference(claim.place, a, b)
            points = format_points((difference and difference.value) or 0.0)
            modes = f"{a} against {b} ({points} points)"
            needed[name_claims([claim]), modes, number] = row.value
    if not undecided:
        return []
    if not needed:
        much = {
            "seeds": f"{MAX_SEEDS} seeds",
            "images": f"{MAX_IMAGES_FACTOR:.0f} times the images",
        }
        return [f"Differences like those seen would take more than {much[suffix]} to call."]
    (name, modes, seeds), factor = min(needed.items(), key=lambda item: item[1])
    amount = (
        f"{factor:.0f} seeds instead of {seeds}"
        if suffix == "seeds"
        else f"{format_factor(factor)} times the images"
    )
    return [
        f"If the differences seen are real, the nearest to a decision is {name}, {modes}: "
        f"about {amount}."
    ]


def _describe_cost(comparison: Comparison) -> list[str]:
    """What the first mode costs in time beside the others, and whether anything pays for it."""
    pairs = list_pairs(comparison)
    mode = pairs[0][0]
    ratios = {b: ratio for a, b in pairs if (ratio := compare_claimed_cost(comparison, (a, b)))}
    if not ratios:
        reasons = dict.fromkeys(explain_missing_cost(comparison, pair) for pair in pairs)
        return [f"What {mode} costs is not known: {join_names(list(reasons))}."]
    named = [f"{_format_cost(ratio)} than {b}" for b, ratio in ratios.items()]
    clauses = join_names([named[0], *(text.replace(TIME, "") for text in named[1:])])
    is_dearer = all(ratio.low is not None and ratio.low > 1 for ratio in ratios.values())
    said = {word for verdicts in judge_claims(comparison).values() for word in verdicts.values()}
    if is_dearer and WORDS[1] not in said:
        return [f"No benefit was measured that pays for {mode}, which cost {clauses}."]
    return [f"{capitalize_first(mode)} cost {clauses}."]


def _format_cost(ratio: StepRatio) -> str:
    low, high = sorted(100 * abs((end or 0) - 1) for end in (ratio.low, ratio.high))
    if ratio.contains(1.0):
        return f"no more{TIME}, within {math.ceil(high)} %,"
    extra, kind = abs(100 * (ratio.value - 1)), "more" if ratio.value > 1 else "less"
    return f"{extra:.0f} % [{low:.0f}, {high:.0f}] {kind}{TIME}"


def _describe_single_mode(comparison: Comparison) -> str:
    scope = SHIFTED_MEAN if comparison.complete_sets else CONTROL_SET
    mode, seeds = comparison.plan.main_modes[0], comparison.plan.seeds
    row = comparison.get_row(scope, mode, "top1")
    if row is None or row.value is None:
        return ""
    few = len(seeds) < SEEDS_FOR_MODE
    subject = join_names([f"{mode}-{seed}" for seed in seeds]) if few else mode
    sets = format_count(len(comparison.complete_sets), "shifted set")
    place = (
        f"On average over {sets}"
        if scope == SHIFTED_MEAN
        else f"On {comparison.plan.titles.get(scope, scope)}"
    )
    return f"{place}, {subject} has a top-1 of {format_percent(row.value)} %."
