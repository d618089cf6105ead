"""The claims of dense contrastive learning, and where the comparison has the evidence for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from densecl.analysis.probe_results import find_measure, format_measure_place
from densecl.analysis.results import SHIFTED_MEAN, Comparison, MetricRow
from densecl.cost.result import StepRatio, compare_costs

Pair = tuple[str, str]


@dataclass(frozen=True)
class Claim:
    """One line of the first screen; the evidence is the score of `place`."""

    name: str
    place: str
    phrase: str  # in sentences: "dense beats none <phrase>"
    about: str = ""  # what is measured
    probe: str = ""  # that measures it
    is_dataset: bool = False  # named as the dataset is


def _build_probe_claim(name: str, probe: str, measure: str, *, phrase: str, about: str) -> Claim:
    return Claim(name, format_measure_place(probe, measure), phrase, about, probe)


OCCLUSION = _build_probe_claim(
    "Occlusion",
    "occlusion",
    "random/area",
    phrase="under occlusion",
    about="top-1, mean over shares of random patches dropped, from none",
)
VIEWPOINT = _build_probe_claim(
    "Viewpoint",
    "viewpoint",
    "area",
    phrase="under changes of viewpoint",
    about="top-1, mean from the unaltered image to the largest rotation, scale, translation, "
    "perspective",
)
SHIFT = Claim(
    "Distribution shift", SHIFTED_MEAN, "under distribution shift", "top-1, mean of the datasets"
)
SPATIAL = _build_probe_claim(
    "Spatial tasks",
    "segmentation",
    "linear/chosen",
    phrase="in segmentation",
    about="mIoU of a linear layer on frozen patches, for these fitted images",
)


def list_claims(comparison: Comparison) -> list[Claim]:
    """The claims in the order of the page; where none could be tested, the datasets instead."""
    views = [
        Claim(f"Viewpoint: dataset {title}", name, f"on the dataset {title}", "top-1")
        for name, title in comparison.plan.titles.items()
        if comparison.get_protocol(name).claim == "viewpoint"
    ]
    claims = [OCCLUSION, VIEWPOINT, *views, SHIFT, SPATIAL]
    pairs = list_pairs(comparison) or comparison.variant_pairs
    if not pairs or any(comparison.get_difference(c.place, *p) for c in claims for p in pairs):
        return claims
    return [
        Claim(title, name, f"on {title}", "top-1", is_dataset=True)
        for name, title in comparison.plan.titles.items()
    ]


def list_pairs(comparison: Comparison) -> Sequence[Pair]:
    """The pairs that the first screen judges: dense with each other mode; without dense the two
    others.
    """
    pairs = comparison.mode_pairs
    return [pair for pair in pairs if pair[0] == "dense"] or pairs


def select_cost_pairs(comparison: Comparison, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs with a cost, which count in their family also where the measurement is refused: no
    verdict on a score may depend on how busy the machine was.
    """
    modes = comparison.cost.modes if comparison.cost else {}
    return [pair for pair in pairs if set(pair) <= set(modes)]


def compare_cost(comparison: Comparison, pair: Pair, tests: int) -> StepRatio | None:
    """Relative time of a pair with its interval in a family of `tests`; None if not measured."""
    cost = comparison.cost
    if cost is None or not cost.is_measured or not select_cost_pairs(comparison, [pair]):
        return None
    return compare_costs(cost, *pair, (1 - comparison.plan.values.confidence) / tests)


def list_claim_tests(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Place and pair of every score that the first screen judges; with the cost of the pairs they
    are one family.
    """
    return [
        (claim.place, a, b)
        for claim in list_claims(comparison)
        for a, b in list_pairs(comparison)
        if comparison.get_difference(claim.place, a, b)
    ]


def count_claim_tests(comparison: Comparison) -> int:
    costs = select_cost_pairs(comparison, list_pairs(comparison))
    return len(list_claim_tests(comparison)) + len(costs)


def is_at_chance(comparison: Comparison, place: str, modes: Sequence[str]) -> bool:
    """Whether no mode's score is shown to be better than chance: every interval includes the chance
    level or lies on its worse side.
    """
    sign = 1 if is_higher_better(comparison, place) else -1
    limits = []
    for mode in modes:
        score, chance = comparison.get_score(place, mode), comparison.get_row(place, mode, "chance")
        if not score or not chance or score.low is None or score.high is None:
            return False
        worse_end = score.low if sign > 0 else score.high
        limits.append(sign * (worse_end - (chance.value or 0.0)))
    return max(limits) <= 0


def is_higher_better(comparison: Comparison, place: str) -> bool:
    """False for errors among the measures of probes."""
    probe, bracket, measure = place.removeprefix("(").partition(") ")
    found = find_measure(comparison, probe, measure) if bracket else None
    return found is None or found.higher_is_better


def get_chance(comparison: Comparison, place: str) -> float | None:
    """The chance level of a place, which all modes share."""
    rows: list[MetricRow | None] = [
        comparison.get_row(place, mode, "chance") for mode in comparison.plan.modes
    ]
    return next((row.value for row in rows if row and row.value is not None), None)
