"""What the tests of the first screen say of two modes on a claim, in words that their simultaneous
intervals support.
"""

import math
from collections.abc import Sequence

from densecl.analysis.claims import (
    Claim,
    Pair,
    count_claim_tests,
    get_chance,
    is_at_chance,
    is_higher_better,
    list_claims,
    list_pairs,
)
from densecl.analysis.comparison import Comparison, get_significance
from densecl.analysis.differences import list_table_tests
from densecl.analysis.needed import MAX_SEEDS
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.cost.result import StepRatio
from densecl.pages.formatting import capitalize_first, format_points, join_names
from densecl.report.sentences import describe_limits

OPEN = "not distinguishable at this size"
AT_CHANCE = "at chance: differences mean nothing"
WORDS = {1: "better", -1: "worse", 0: OPEN}


def judge_claim(comparison: Comparison, claim: Claim, pair: Pair) -> str:
    """One of WORDS, AT_CHANCE, or "" where the two could not be compared."""
    if comparison.get_difference(claim.place, *pair) is None:
        return ""
    sign = get_significance(comparison, claim.place, *pair)
    if is_at_chance(comparison, claim.place, pair) and not (
        sign and _is_above_chance(comparison, claim.place, pair)
    ):
        return AT_CHANCE
    return WORDS[sign if is_higher_better(comparison, claim.place) else -sign]


def _is_above_chance(comparison: Comparison, place: str, pair: Pair) -> bool:
    """Whether either score itself, whatever its interval, is better than the chance level."""
    sign = 1 if is_higher_better(comparison, place) else -1
    chance = get_chance(comparison, place) or 0.0
    scores = [comparison.get_score(place, mode) for mode in pair]
    return any(sign * ((score and score.value) or 0.0) > sign * chance for score in scores)


def judge_cost(ratio: StepRatio) -> str:
    """More time is worse."""
    if ratio.contains(1.0):
        return OPEN
    return WORDS[1 if ratio.value < 1 else -1]


def describe_needed(comparison: Comparison, place: str, pair: Pair) -> str:
    """What would tell the two apart; "" where they are."""
    metric = f"difference_to_{pair[1]}_needed"
    seeds = comparison.get_row(place, pair[0], f"{metric}_seeds")
    images = comparison.get_row(place, pair[0], f"{metric}_images")
    if seeds is None or images is None:
        return ""
    times = "" if images.value is None else f"{format_factor(images.value)} × the images"
    if len(seeds.seeds.split()) < SEEDS_FOR_MODE:
        return times or "more than 1000 × the images"
    number = f"{seeds.value:.0f} seeds" if seeds.value else f"more than {MAX_SEEDS} seeds"
    return f"{number} or {times}" if times else number


def format_factor(factor: float) -> str:
    """Rounded up: 1.3, 4, 120."""
    places = 10 if factor <= 9.9 else 1
    return f"{math.ceil(places * factor - 1e-9) / places:g}"


def format_limits(comparison: Comparison, place: str, pair: Pair) -> tuple[str, str]:
    """The difference in points and its simultaneous interval."""
    row = comparison.get_row(place, pair[0], f"difference_to_{pair[1]}_simultaneous")
    if row is None or row.value is None or row.low is None or row.high is None:
        return "", ""
    return format_points(row.value), f"[{format_points(row.low)}, {format_points(row.high)}]"


Seeds = tuple[int, ...]


def list_seeds(comparison: Comparison, place: str, pair: Pair) -> Seeds:
    """Those that the difference was taken of; () without one."""
    row = comparison.get_difference(place, *pair)
    return tuple(sorted(map(int, row.seeds.split()))) if row else ()


def group_by_seeds(comparison: Comparison) -> dict[Seeds, list[tuple[Claim, Pair]]]:
    """The differences that the first screen judges, by the seeds that they were taken of."""
    groups: dict[Seeds, list[tuple[Claim, Pair]]] = {}
    for claim in list_claims(comparison):
        for pair in list_pairs(comparison):
            if seeds := list_seeds(comparison, claim.place, pair):
                groups.setdefault(seeds, []).append((claim, pair))
    return groups


def name_subject(mode: str, seeds: Seeds) -> str:
    """Modes are spoken of from three seeds on; before, these models: `dense-0`, `dense-0/1`."""
    return mode if len(seeds) >= SEEDS_FOR_MODE else f"{mode}-{'/'.join(map(str, seeds))}"


def name_claims(claims: Sequence[Claim]) -> str:
    """In a sentence; the names of datasets as they are."""
    names = [c.name if c.is_dataset else f"{c.name[0].lower()}{c.name[1:]}" for c in claims]
    return join_names(list(dict.fromkeys(names)))


def describe_few_seeds(comparison: Comparison) -> list[str]:
    """What cannot be said of the modes, by claim where only some have fewer than three seeds."""
    groups = group_by_seeds(comparison)
    few = {seeds: tests for seeds, tests in groups.items() if len(seeds) < SEEDS_FOR_MODE}
    numbers = {len(seeds) for seeds in groups}
    if len(few) == len(groups) and len(numbers) == 1:
        return describe_limits(numbers.pop(), "the modes")
    names = {1: "one seed", 2: "two seeds"}
    return [
        f"{_name_tests(comparison, tests)}: {names[len(seeds)]} ({', '.join(map(str, seeds))}), "
        "so no statement about the modes there."
        for seeds, tests in few.items()
    ]


def _name_tests(comparison: Comparison, tests: Sequence[tuple[Claim, Pair]]) -> str:
    """The claims, with the pair where another pair of the claim has other seeds."""
    names = {}
    for claim, pair in tests:
        others = {list_seeds(comparison, claim.place, p) for p in list_pairs(comparison)} - {()}
        name = name_claims([claim])
        names[name if len(others) == 1 else f"{name} ({' − '.join(pair)})"] = claim
    text = join_names(list(names))
    first = next(iter(names.values()))
    return text if first.is_dataset else capitalize_first(text)


def describe_families(comparison: Comparison) -> tuple[str, str]:
    """What the verdicts of the first screen, and those of the tables below it, hold for; "" for a
    family without tests.
    """
    return (
        _describe_family(count_claim_tests(comparison), "all verdicts of this screen"),
        _describe_family(len(list_table_tests(comparison)), "all verdicts of the tables below"),
    )


def _describe_family(tests: int, members: str) -> str:
    texts = {0: "", 1: f"A family of one test, {members.replace('all verdicts', 'the verdict')}"}
    return texts.get(tests, f"One family of {tests} tests, {members}")
