"""Simulated error rates of the gate, and candidates that decay from week to week, for
docs/retraining.md: `python -m benchmarks.gate`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from densecl.config.params import GateParams, ReportParams
from pipelines.gate.criteria import check_regression, check_validation
from pipelines.gate.gate import judge_outcomes
from pipelines.gate.pairing import pair_outcomes

GATE, CONFIDENCE = GateParams(), ReportParams().confidence
TRUE_DROPS = (0.0, GATE.margin, GATE.max_drop, 0.05)
DISCORDANT = (0.06, 0.2)  # share of images on which the two models differ


def simulate_error_rates(
    n: int, truth: float, discordant: float, trials: int
) -> tuple[float, float]:
    """Shares of candidates, truly worse by `truth` on n images, that `val` passes and that `fall`
    rejects.
    """
    shares = [(discordant - truth) / 2, (discordant + truth) / 2, 1 - discordant]
    rng, passed, refused = np.random.default_rng(0), 0, 0
    for gained, lost, _ in rng.multinomial(n, shares, trials):
        first, second = np.zeros((n, 1)), np.zeros((n, 1))
        first[:gained], second[gained : gained + lost] = 1, 1
        pair = pair_outcomes(first, second, CONFIDENCE)
        passed += check_validation(GATE, pair).passed
        refused += not check_regression(GATE, "imagenet", pair).passed
    return passed / trials, refused / trials


def simulate_decay(
    n: int,
    gate: GateParams,
    *,
    is_anchored: bool,
    seed: int = 0,
    weeks: int = 26,
    decay: float = 0.003,
) -> list[float]:
    """True top-1 of each champion, the first included: every week a candidate is truly worse than
    the one of the week before by `decay`.

    An image has a difficulty, and each model's own noise makes a tenth of the variance: two equally
    good models differ on about a tenth of the images.
    """
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 0.9**0.5, n)

    def draw_outcomes(top1: float) -> dict[str, NDArray[np.bool_]]:
        return {"imagenet": difficulty + rng.normal(0, 0.1**0.5, n) < norm.ppf(top1)}

    levels = [0.75]
    first = champion = draw_outcomes(levels[0])
    for week in range(1, weeks + 1):
        level = levels[0] - week * decay
        candidate = draw_outcomes(level)
        anchor = first if is_anchored else None
        criteria = judge_outcomes(gate, CONFIDENCE, 1000, candidate, champion, anchor)
        if all(criterion.passed for criterion in criteria):
            levels.append(level)
            champion = candidate
    return levels


def print_error_rates() -> None:
    truths = ["as good", *(f"worse by {100 * truth:g}" for truth in TRUE_DROPS[1:])]
    print(
        "| images | differ on | " + " | ".join(truths) + " |\n" + "|---" * (2 + len(truths)) + "|"
    )
    for n, trials in ((100, 2000), (500, 2000), (5000, 1000), (50_000, 300)):
        for discordant in DISCORDANT:
            cells = [simulate_error_rates(n, truth, discordant, trials) for truth in TRUE_DROPS]
            print(
                f"| {n:,} | {100 * discordant:g} % | "
                + " | ".join(f"{100 * p:.1f} / {100 * r:.1f}" for p, r in cells)
                + " |"
            )


def print_decay(runs: int = 20) -> None:
    print("| images | anchor | promotions in 26 weeks | top-1 lost, points |\n" + "|---" * 4 + "|")
    for n in (5000, 50_000):
        for is_anchored in (False, True):
            levels = [
                simulate_decay(n, GATE, is_anchored=is_anchored, seed=seed) for seed in range(runs)
            ]
            promotions = _format_range([len(champions) - 1 for champions in levels])
            lost = _format_range([100 * (champions[0] - champions[-1]) for champions in levels])
            print(f"| {n:,} | {'yes' if is_anchored else 'no'} | {promotions} | {lost} |")


def _format_range(values: Sequence[float]) -> str:
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    print_error_rates()
    print()
    print_decay()
