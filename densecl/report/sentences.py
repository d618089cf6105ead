"""Sentences that the report and the comparison of experiments share, on the number of seeds and on
power.
"""

from collections.abc import Sequence

from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.pages.formatting import format_percent


def describe_limits(seeds: int, about: str) -> list[str]:
    """What so few seeds cannot show, the first words of a headline; [] from three seeds on."""
    names = {1: "One seed", 2: "Two seeds"}
    return [f"{names[seeds]}: no statement about {about}."] if seeds in names else []


def describe_power(who: str, values: Sequence[float], seeds: int, scope: str = "") -> list[str]:
    """Smallest differences that the tests without a significant result would detect, and on what
    that is conditional; [] if there are none.
    """
    if not values:
        return []
    span = " to ".join(dict.fromkeys(format_percent(limit) for limit in (min(values), max(values))))
    noun = "differences" if scope else "a difference"
    condition = (
        "images and seeds vary as much as these do"
        if seeds >= SEEDS_FOR_MODE
        else "these models meet new images like these; of other seeds nothing is known"
    )
    return [
        f"Where {who}, the test has 80 % power to detect {noun} of {span} points{scope}, given "
        f"that {condition}; smaller ones may have gone undetected."
    ]


def describe_scope(
    seeds: int, names: str, trained: str = "this way on this data", instead: str = "the modes"
) -> str:
    """Whether the results are about modes or about the trained models: by the fewest seeds."""
    if seeds >= SEEDS_FOR_MODE:
        return (
            f"From {names}, so this speaks of the modes, trained {trained}; the intervals cover "
            f"new seeds and new images."
        )
    return (
        f"From {names}, so this speaks of these models, not of {instead}: the intervals cover new "
        f"images and not the noise between seeds; another seed may give another result."
    )
