"""Simulated error rates of the gate, for docs/retraining.md: `python -m benchmarks.gate`."""

import numpy as np

from densecl.analysis.paired import estimate_difference
from densecl.config.params import GateParams
from pipelines.gate.gate import PairedResult, check_regression, check_validation

GATE = GateParams()
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
        pair = PairedResult(estimate_difference(first, second, 0.95), n, "")
        passed += check_validation(GATE, pair).passed
        refused += not check_regression(GATE, "imagenet", pair).passed
    return passed / trials, refused / trials


def main() -> None:
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


if __name__ == "__main__":
    main()
