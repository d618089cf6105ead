"""Scores of groups of classes, by hand and against plain scoring."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from densecl.artifacts import ClassGroups
from densecl.evaluation.group_scores import ScoredGroups, match_groups, score_groups
from densecl.evaluation.predict import score_logits

CLASSES = ("n1", "n2", "n3", "n4", "n5")


def group(combine: str, outside: str = "masked", **members: str) -> ScoredGroups:
    lists = {name: tuple(wnids.split()) for name, wnids in members.items()}
    return ScoredGroups(ClassGroups(members=lists, combine=combine, outside=outside), CLASSES)


def score(probabilities: list[float], label: int, groups: ScoredGroups) -> pd.Series:
    logits = torch.tensor([probabilities], dtype=torch.float64).log().float()
    return score_groups(logits, torch.tensor([label]), groups).iloc[0]


def test_the_mean_and_the_largest_probability_choose_differently():
    # Means: a (0.4 + 0.0 + 0.05) / 3 = 0.15, b 0.3. Largest: a 0.4, b 0.3.
    members = {"a": "n1 n2 n3", "b": "n4"}
    probabilities = [0.4, 1e-30, 0.05, 0.3, 0.25]
    mean = score(probabilities, 1, group("mean", **members))
    assert (mean["prediction"], mean["correct"]) == (1, True)
    assert mean["confidence"] == mean["p_true"] == pytest.approx(0.3 / 0.45)
    largest = score(probabilities, 1, group("max", **members))
    assert (largest["prediction"], largest["correct"]) == (0, False)
    assert largest["confidence"] == pytest.approx(0.4 / 0.7)
    assert largest["p_true"] == pytest.approx(0.3 / 0.7)


def test_a_class_of_no_group_is_masked_or_wrong():
    probabilities, members = [0.2, 0.1, 0.1, 0.1, 0.5], {"a": "n1 n2", "b": "n3 n4"}
    masked = score(probabilities, 0, group("max", "masked", **members))
    assert (masked["prediction"], masked["correct"]) == (0, True)
    assert masked["confidence"] == pytest.approx(0.2 / 0.3)
    wrong = score(probabilities, 0, group("max", "wrong", **members))
    assert (wrong["prediction"], wrong["correct"], wrong["correct5"]) == (-1, False, True)
    assert wrong["confidence"] == pytest.approx(0.5 / 0.8)  # groups 0.2 and 0.1, and 0.5
    assert wrong["p_true"] == pytest.approx(0.2 / 0.8)
    for row in (masked, wrong):
        assert (row["prediction_unmasked"], row["correct_unmasked"]) == (-1, False)
        assert row["confidence_unmasked"] == pytest.approx(0.5)


@pytest.mark.parametrize("combine", ["mean", "max"])
def test_of_equal_groups_the_first_is_predicted(combine):
    members = {"a": "n3 n4", "b": "n1 n2"}
    equal = score([0.2, 0.2, 0.2, 0.2, 0.2], 0, group(combine, **members))
    assert (equal["prediction"], equal["confidence"]) == (0, 0.5)


@pytest.mark.parametrize("outside", ["masked", "wrong"])
@pytest.mark.parametrize("combine", ["mean", "max"])
def test_groups_of_one_class_each_are_plain_scoring(combine, outside):
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.arange(200) % 5
    groups = group(combine, outside, **{f"g{n}": f"n{n}" for n in range(1, 6)})
    pd.testing.assert_frame_equal(
        score_groups(logits, labels, groups), score_logits(logits, labels, list(range(5)))
    )


def test_masked_groups_of_one_class_are_plain_scoring_under_the_mask():
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(1)) * 3
    groups, labels = group("max", a="n2", b="n5"), torch.arange(200) % 2
    classes = np.array([1, 4])
    found, plain = (
        score_groups(logits, labels, groups),
        score_logits(logits, torch.tensor([1, 4])[labels], [1, 4]),
    )
    assert (classes[found["prediction"]] == plain["prediction"]).all()
    same = ["confidence", "p_true", "correct", "correct_unmasked", "correct5_unmasked"]
    pd.testing.assert_frame_equal(found[same], plain[same])


def test_a_group_that_the_model_does_not_know_is_never_predicted():
    groups = group("mean", a="n9", b="n1 n9", c="n2")
    assert groups.known == {"b": 1, "c": 2}
    assert groups.label_of_class.tolist() == [1, 2, -1, -1, -1]
    assert groups.label_wnids(pd.Series(["n9", "n1", "n2", "n3"])).tolist() == [1, 1, 2, -1]
    row = score([0.05, 0.05, 0.3, 0.3, 0.3], 1, groups)
    assert (row["prediction"], row["confidence"]) == (1, 0.5)


def test_chance_is_the_accuracy_of_guessing_a_class():
    """By 5,000 random answers to each of two labels, of groups of 3 and of 1 of 5 classes."""
    groups, labels = group("max", "wrong", a="n1 n2 n3", b="n5"), torch.arange(10_000) % 2
    logits = torch.randn(10_000, 5, generator=torch.Generator().manual_seed(0))
    found = score_groups(logits, labels, groups)["correct"].mean()
    assert groups.compute_chance(pd.Series(labels.numpy())) == pytest.approx((3 + 1) / 2 / 5)
    assert found == pytest.approx(0.4, abs=0.02)
    assert group("max", a="n1 n2", b="n5").compute_chance(pd.Series([0, 1])) is None


def test_extreme_logits_are_scored():
    logits = torch.tensor([[0.0, 10.0, 3000.0, -3000.0, 5000.0]])
    row = score_groups(logits, torch.tensor([0]), group("mean", a="n1", b="n2")).iloc[0]
    assert (row["prediction"], row["correct"]) == (1, False)
    assert row["p_true"] == pytest.approx(math.exp(-10) / (1 + math.exp(-10)))


def test_five_best_classes_or_groups():
    """Of 12 classes, two a group: the label's best class is the sixth, its group the third."""
    classes = tuple(f"n{n}" for n in range(12))
    members = {f"g{n}": (f"n{2 * n}", f"n{2 * n + 1}") for n in range(6)}
    logits = torch.tensor([[12.0, 11, 10, 9, 7, 1, 8, 2, 3, 4, 5, 6]])
    for outside, expected in (("masked", True), ("wrong", False)):
        groups = ScoredGroups(ClassGroups(members=members, combine="max", outside=outside), classes)
        row = score_groups(logits, torch.tensor([2]), groups).iloc[0]
        assert (row["correct5"], row["correct5_unmasked"]) == (expected, False)


def test_as_numpy_would_with_a_loop():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (300, 5)).astype(np.float32)
    groups = group("mean", a="n1 n4", b="n2 n3 n5")
    found = score_groups(torch.tensor(logits), torch.zeros(300, dtype=torch.int64), groups)
    for row, prediction in zip(logits.astype(float), found["prediction"], strict=True):
        exponentials = np.exp(row - row.max())
        p = exponentials / exponentials.sum()
        assert prediction == int((p[1] + p[2] + p[4]) / 3 > (p[0] + p[3]) / 2)


def test_no_groups_are_none():
    assert match_groups(None, CLASSES) is None
