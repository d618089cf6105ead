"""What the tests of the first screen say of two modes, in words that their simultaneous intervals
support.
"""

from collections.abc import Sequence

from densecl.analysis.comparison import SHIFTED_MEAN, Comparison, MetricRow, get_significance
from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.config.params import Mode
from densecl.pages.formatting import (
    capitalize_first,
    format_count,
    format_percent,
    format_points,
    join_names,
)

MAX_NAMED_SETS = 3  # datasets that a sentence names per direction, largest differences first


def describe_families(comparison: Comparison) -> tuple[str, str]:
    """What the verdicts of the first screen, and those of the table of datasets, hold for."""
    means, single = (
        comparison.count_tests(places)
        for places in ((SHIFTED_MEAN,), tuple(comparison.plan.datasets))
    )
    return (
        _describe_family(means, "the means of all pairs of modes"),
        _describe_family(single, "all datasets and pairs of modes"),
    )


def _describe_family(tests: int, members: str) -> str:
    texts = {0: "No test", 1: "A family of one test"}
    return texts.get(tests, f"One family of {tests} tests, {members}")


def list_tested(comparison: Comparison, mode: str, baseline: str) -> list[MetricRow]:
    """The differences of two modes that the first screen judges: one family over all pairs."""
    rows = (comparison.get_difference(s, mode, baseline) for s in comparison.judged_places)
    return [row for row in rows if row]


def count_fewest_seeds(comparison: Comparison) -> int:
    """The smallest number of seeds of any difference that is judged; 0 without any."""
    rows = [row for a, b in comparison.mode_pairs for row in list_tested(comparison, a, b)]
    return min((len(row.seeds.split()) for row in rows), default=0)


def describe_verdict(comparison: Comparison, mode: Mode, baseline: Mode) -> str:
    """Test results of two modes, without a full stop; "" if no dataset has both.

    Modes are spoken of from three seeds on; before, these models by their names.
    """
    tested = list_tested(comparison, mode, baseline)
    if not tested:
        return ""
    subject, other, plural = str(mode), str(baseline), False
    if count_fewest_seeds(comparison) < SEEDS_FOR_MODE:
        seeds = sorted({int(seed) for row in tested for seed in row.seeds.split()})
        subject, other = (
            join_names([f"{name}-{seed}" for seed in seeds]) for name in (mode, baseline)
        )
        plural = len(seeds) > 1
    groups: dict[int, list[MetricRow]] = {1: [], -1: [], 0: []}
    for row in tested:
        groups[get_significance(comparison, row.dataset, mode, baseline)].append(row)
    verbs = {1: "beat" if plural else "beats", -1: "fall behind" if plural else "falls behind"}
    clauses: list[str] = []
    object_ = other
    for sign, verb in verbs.items():
        if groups[sign]:
            places = _list_places(comparison, groups[sign], mode, baseline)
            clauses.append(f"{verb} {object_} {join_names(places)}")
            object_ = "them" if plural else "it"
    if clauses:
        return f"{capitalize_first(subject)} {join_names(clauses)}" + (
            "; no other difference between the two is statistically significant"
            if groups[0]
            else ""
        )
    text = f"{capitalize_first(subject)} and {other} do not differ significantly"
    if len(tested) > 1:
        return f"{text} on any of {len(tested)} datasets"
    value, low, high = _get_limits(comparison, tested[0], mode, baseline)
    place = format_place(comparison, tested[0].dataset)
    limits = f"[{format_points(low)}, {format_points(high)}]"
    return f"{text} {place}: {format_points(value)} points {limits}"


def _get_limits(
    comparison: Comparison, row: MetricRow, mode: str, baseline: str
) -> tuple[float, float, float]:
    """Value and simultaneous interval."""
    found = comparison.get_row(row.dataset, mode, f"difference_to_{baseline}_simultaneous") or row
    return found.value or 0.0, found.low or 0.0, found.high or 0.0


def _list_places(
    comparison: Comparison, rows: Sequence[MetricRow], mode: str, baseline: str
) -> list[str]:
    """The largest differences, each with its interval in the direction of the difference; how many
    more there are.
    """
    largest = sorted(rows, key=lambda row: -abs(row.value or 0))
    places = []
    for row in largest[:MAX_NAMED_SETS]:
        value, low, high = _get_limits(comparison, row, mode, baseline)
        low, high = (low, high) if value > 0 else (-high, -low)
        places.append(
            f"by {format_percent(abs(value))} points "
            f"[{format_percent(low)}, {format_percent(high)}] "
            f"{format_place(comparison, row.dataset)}"
        )
    more = len(largest) - MAX_NAMED_SETS
    return [*places, *([f"on {format_count(more, 'further set')}"] if more > 0 else [])]


def format_place(comparison: Comparison, dataset: str) -> str:
    if dataset != SHIFTED_MEAN:
        return f"on {dataset}"
    return f"on average over {format_count(len(comparison.complete_sets), 'shifted set')}"
