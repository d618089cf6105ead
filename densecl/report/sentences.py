"""Sentences that the report and the comparison of experiments share, on the number of seeds and on
power.
"""

from collections.abc import Sequence

from densecl.analysis.statistics import SEEDS_FOR_MODE
from densecl.pages.formatting import format_percent

# docs/evaluation.md
SEED_NOISE = "0.1 to 0.5 points of top-1 in published ImageNet runs, many times that in small ones"


def describe_power(who: str, values: Sequence[float], scope: str = "") -> list[str]:
    """Smallest differences that the tests without a significant result would detect; [] if there
    are none.
    """
    if not values:
        return []
    span = " to ".join(dict.fromkeys(format_percent(limit) for limit in (min(values), max(values))))
    noun = "differences" if scope else "a difference"
    return [
        f"Where {who}, the test has 80 % power to detect {noun} of {span} points{scope}; smaller "
        f"ones may have gone undetected."
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
        f"From {names}, so this speaks of these models, not of {instead}: the intervals do not "
        f"cover the noise between seeds ({SEED_NOISE}); another seed may give another result."
    )
