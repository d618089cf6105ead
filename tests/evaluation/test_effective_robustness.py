"""Effective robustness against its published fit."""

import math
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest

from densecl.evaluation import effective_robustness


def test_the_package_s_table_is_the_reference(suite):
    reference = suite.parent / "reference" / "effective_robustness.csv"
    if not reference.exists():
        pytest.skip("no reference/effective_robustness.csv beside the suite")
    assert (
        files("densecl.evaluation") / "effective_robustness.csv"
    ).read_bytes() == reference.read_bytes()


def test_a_standard_model_is_near_the_fit_and_the_formula_is_the_logit():
    # deit_small_patch16_224 of timm's results tables: clean 79.856 %, V2 68.53 %, Sketch 29.435 %.
    by_hand = 1 / (1 + math.exp(-(0.923 * math.log(0.79856 / 0.20144) - 0.498)))
    assert effective_robustness.compute_expected_accuracy("imagenet-v2", 0.79856) == pytest.approx(
        by_hand, abs=1e-12
    )
    assert abs(0.6853 - by_hand) < 0.02
    assert abs(0.29435 - effective_robustness.compute_expected_accuracy("sketch", 0.79856)) < 0.05


def test_imagenet_a_has_two_pieces():
    """They do not meet: as published, the second begins 1.2 points above the first's end."""
    low, high = effective_robustness.load_fit_segments("imagenet-a")
    assert low.high == high.low == 0.9186
    for clean, slope, intercept in ((0.9186, 0.689, -5.140), (0.9187, 2.956, -10.277)):
        by_hand = 1 / (1 + math.exp(-(slope * math.log(clean / (1 - clean)) + intercept)))
        assert effective_robustness.compute_expected_accuracy("imagenet-a", clean) == pytest.approx(
            by_hand, abs=1e-12
        )


@pytest.mark.parametrize("clean", [0.6, 0.75, 0.95])
@pytest.mark.parametrize(
    "protocol", ["imagenet-v2", "imagenet-r", "imagenet-a", "sketch", "stylized"]
)
def test_slope_is_the_derivative(protocol, clean):
    step = 1e-6
    slow = (
        effective_robustness.compute_expected_accuracy(protocol, clean + step)
        - effective_robustness.compute_expected_accuracy(protocol, clean - step)
    ) / (2 * step)
    assert effective_robustness.compute_slope(protocol, clean) == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize(
    ("protocol", "clean", "said"),
    [
        ("folder", 0.8, "no published fit for folder"),
        ("sketch", 0.4, "clean top-1 40.0 % lies outside 55 to 100 %"),
        ("sketch", 1.0, "100.0 %"),
    ],
)
def test_outside_the_fit_there_is_a_reason(protocol, clean, said):
    with pytest.raises(effective_robustness.NotApplicable, match=said):
        effective_robustness.compute_expected_accuracy(protocol, clean)


def test_every_row_of_the_table_is_read():
    table = pd.read_csv(str(files("densecl.evaluation") / "effective_robustness.csv"))
    assert (
        sum(len(effective_robustness.load_fit_segments(name)) for name in table["dataset"].unique())
        == len(table)
        == 6
    )


def test_the_error_of_a_line_is_that_of_simulated_fits():
    """Evenly spread models with the scatter that gives the published r2: the spread of refitted
    lines at one x.
    """
    clean, segment = 0.7, effective_robustness.find_fit_segment("imagenet-a", 0.7)
    low, x, high = (math.log(p / (1 - p)) for p in (segment.low, clean, segment.highest))
    models = np.linspace(low, high, segment.models)
    scatter = math.sqrt(segment.slope**2 * models.var() * (1 / segment.r2 - 1))
    rng, lines = np.random.default_rng(0), []
    for _ in range(3000):
        noisy = segment.slope * models + segment.intercept + rng.normal(0, scatter, models.size)
        lines.append(np.polyval(np.polyfit(models, noisy, 1), x))
    shares = 1 / (1 + np.exp(-np.array(lines)))
    found = effective_robustness.compute_fit_error("imagenet-a", clean)
    assert found == pytest.approx(shares.std(), rel=0.1)
