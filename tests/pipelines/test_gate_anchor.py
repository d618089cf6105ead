"""The gate over many weeks: small steps do not add up, and the anchor is one that still measures
the same.
"""

import json

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from benchmarks.gate import simulate_decay
from densecl import paths
from densecl.analysis.sampled_value import Estimate
from densecl.config.params import GateParams
from densecl.datasets.storage.manifest import write_manifest
from pipelines.gate.anchor import hash_validation_images
from pipelines.gate.gate import find_shortfalls, judge_candidate, judge_outcomes
from pipelines.gate.trials import (
    compute_expected_maximum,
    describe_trials,
    estimate_winner_bias,
)
from pipelines.schemas import Anchor, Champion, Criterion, GateVerdict
from tests.pipelines.factories import CLASSES, outcomes, small_params, write_nothing, write_side
from tests.pipelines.test_drift import manifest

FIRST = Anchor(version="1", origin="first champion", validation="a")
CHAMPION = Champion(version="3", anchor=FIRST)


def find(verdict: GateVerdict, name: str, dataset: str = "imagenet") -> Criterion:
    (found,) = (c for c in verdict.criteria if (c.name, c.dataset) == (name, dataset))
    return found


def plant(root, dataset: str, to_champion: float, to_anchor: float, n: int = 10_000) -> None:
    """The candidate's true differences to champion and anchor."""
    candidate, champion = outcomes(n, 0.7, -to_champion, 0.05, 1)
    write_side(root, dataset, "dense", candidate)
    write_side(root, dataset, paths.CHAMPION, champion)
    lost = round(-to_anchor * n)
    anchor = candidate.copy()
    anchor[np.flatnonzero(~candidate if lost > 0 else candidate)[: abs(lost)]] = lost > 0
    write_side(root, dataset, paths.ANCHOR, anchor)


@pytest.mark.parametrize("seed", range(3, 8))
def test_26_weeks_of_decay_stay_within_the_margin(seed):
    """0.3 points a week: without the anchor each step is within the margin, and nothing stops."""
    gate = GateParams()
    loose, held = (
        simulate_decay(50_000, gate, is_anchored=is_anchored, seed=seed)
        for is_anchored in (False, True)
    )
    assert len(loose) > 20
    assert loose[0] - loose[-1] > 0.07
    assert 0 < held[0] - held[-1] <= gate.margin


def test_a_cumulative_margin_is_the_bound_of_all_steps():
    gate = GateParams(cumulative_margin=0.03)
    for seed in range(3, 6):
        held = simulate_decay(50_000, gate, is_anchored=True, seed=seed)
        assert 0.01 < held[0] - held[-1] <= 0.03
    with pytest.raises(ValidationError, match=r"found 0.005, expected at least margin \(0.01\)"):
        GateParams(cumulative_margin=0.005)


def test_a_step_within_the_margin_is_refused_where_the_sum_is_not(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, -0.02 if name == "imagenet" else 0.0)
    verdict = judge_candidate(small_params(), CHAMPION, tmp_path)
    assert find(verdict, "val").passed
    found = find(verdict, "anchor")
    assert (found.passed, found.bound, found.value) == (False, -0.01, pytest.approx(-0.02))
    assert find(verdict, "anchor-fall").passed  # not more than 2 points
    assert find(verdict, "anchor-fall", "sketch").passed
    assert (verdict.promoted, verdict.anchor) == (False, "1")
    assert verdict.said.startswith(
        "refused, version 3 stays: imagenet against the anchor, version 1: −2.0 points ("
    )
    wide = small_params(gate={"cumulative_margin": 0.03})
    assert judge_candidate(wide, CHAMPION, tmp_path).promoted


def test_falls_of_a_shifted_set_do_not_add_up_either(tmp_path):
    plant(tmp_path, "imagenet", 0.0, 0.0)
    plant(tmp_path, "sketch", -0.005, -0.03)
    verdict = judge_candidate(small_params(), CHAMPION, tmp_path)
    assert [(c.name, c.dataset) for c in verdict.criteria if not c.passed] == [
        ("anchor-fall", "sketch")
    ]
    assert "sketch against the anchor, version 1: falls by 3.0 points" in verdict.said
    wide = small_params(gate={"cumulative_margin": 0.05})  # then a fall may be as large
    assert judge_candidate(wide, CHAMPION, tmp_path).promoted


def test_a_promotion_says_both_differences(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, 0.001)
    said = judge_candidate(small_params(), CHAMPION, tmp_path).said
    assert said.startswith("promoted over version 3: imagenet ")
    assert "; against the anchor, version 1: +0.1 points (" in said


def test_an_anchor_that_cannot_be_scored_refuses(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, 0.0)
    write_nothing(tmp_path, "imagenet", paths.ANCHOR, "gone")
    verdict = judge_candidate(small_params(), CHAMPION, tmp_path)
    assert not verdict.promoted
    assert "against the anchor, version 1: the anchor has no evaluation: gone" in verdict.said


def test_the_champion_as_its_own_anchor_is_compared_once(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, -0.5)  # of no account: no files of the anchor are read
    same = Champion(version="1", anchor=FIRST)
    verdict = judge_candidate(small_params(), same, tmp_path, validation="a")
    assert (verdict.promoted, verdict.anchor) == (True, "1")
    assert {c.name for c in verdict.criteria} == {"val", "fall", "chance"}


@pytest.mark.parametrize("model", [paths.ANCHOR, paths.CHAMPION])
def test_other_classes_ask_for_a_new_anchor(tmp_path, model):
    """Also where the anchor is the champion."""
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, 0.0)
    config = tmp_path / paths.model_folder(model, 0) / "config.json"
    champion = CHAMPION if model == paths.ANCHOR else Champion(version="1", anchor=FIRST)
    config.write_text(json.dumps({"classes": [*reversed(CLASSES)]}))
    turned = judge_candidate(small_params(), champion, tmp_path)
    assert "classes changed" not in turned.said  # another order is the same classes
    config.write_text(json.dumps({"classes": [*CLASSES[1:], "n99999999", "n99999998"]}))
    verdict = judge_candidate(small_params(), champion, tmp_path)
    found = find(verdict, "anchor")
    assert (found.passed, found.value, verdict.promoted) == (False, None, False)
    assert found.said == (
        "against the anchor, version 1: the classes changed (1 new, 2 removed) since it became the "
        "anchor; check this candidate yourself; `python -m pipelines promote candidate --why TEXT` "
        "makes it champion and anchor"
    )
    assert "anchor-fall" not in {c.name for c in verdict.criteria}


@pytest.mark.slow
def test_other_validation_images_ask_for_a_new_anchor(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, 0.0)

    def judge(anchor: Anchor, now: str) -> GateVerdict:
        champion = Champion(version="3", anchor=anchor)
        return judge_candidate(small_params(), champion, tmp_path, validation=now)

    assert judge(FIRST, "a").promoted
    assert judge(FIRST.model_copy(update={"validation": None}), "b").promoted  # not recorded
    verdict = judge(FIRST, "b")
    assert not verdict.promoted
    assert "the validation images changed since it became the anchor; check this" in verdict.said
    named = judge(FIRST.model_copy(update={"origin": "named in params"}), "b")
    assert "name another version under retraining.anchor" in named.said


def test_a_fall_does_not_hide_that_another_anchor_is_needed(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, -0.05, 0.0)
    said = judge_candidate(small_params(), CHAMPION, tmp_path, validation="b").said
    assert "; imagenet falls by " in said
    assert ": imagenet against the anchor, version 1: the validation images changed" in said


def test_validation_images_are_known_by_content_and_class(tmp_path):
    def hash_of(frame: pd.DataFrame) -> str | None:
        write_manifest(frame, tmp_path / paths.manifest_file("imagenet"))
        return hash_validation_images(tmp_path)

    assert hash_validation_images(tmp_path) is None
    images = manifest("imagenet")
    found = hash_of(images)
    renamed = images.assign(path=[f"other/{path}" for path in images["path"]])
    assert hash_of(renamed.iloc[::-1].reset_index(drop=True)) == found
    assert hash_of(images.iloc[1:].reset_index(drop=True)) != found
    images.loc[0, "sha256"] = "0" * 64
    assert hash_of(images) != found
    moved = manifest("imagenet")
    moved.loc[0, "wnid"] = moved["wnid"].iloc[-1]
    assert hash_of(moved) != found


@pytest.mark.slow
def test_minimums_hold_for_every_candidate(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, 0.0)
    params = small_params(gate={"minimum": {"sketch": 0.75, "imagenet": 0.5}})
    verdict = judge_candidate(params, CHAMPION, tmp_path)
    assert [(c.name, c.dataset) for c in verdict.criteria if not c.passed] == [
        ("minimum", "sketch")
    ]
    assert "below the minimum of 75.0 %" in verdict.said
    (shortfall,) = find_shortfalls(params, tmp_path)
    assert shortfall.startswith("sketch top-1 ")
    assert shortfall.endswith("below the minimum of 75.0 %")
    for model in ("dense", paths.CHAMPION, paths.ANCHOR):
        for name in ("imagenet", "sketch"):
            write_side(tmp_path, name, model, np.arange(10_000) % 10 == 0)
    verdict = judge_candidate(small_params(), CHAMPION, tmp_path)
    assert [c.name for c in verdict.criteria if not c.passed] == ["chance"]
    assert "not surely above chance (10.0 %)" in verdict.said
    assert "not surely above chance" in find_shortfalls(small_params(), tmp_path)[0]


def test_arrays_are_judged_as_files_are(tmp_path):
    """The same criteria from outcomes in memory, for simulations."""
    arrays = {}
    for number, name in enumerate(("imagenet", "sketch")):
        plant(tmp_path, name, -0.004 * number, -0.01)
    for model in ("dense", paths.CHAMPION, paths.ANCHOR):
        arrays[model] = {
            name: pd.read_parquet(tmp_path / paths.predictions_file(name, model, 0))[
                "correct"
            ].to_numpy()
            for name in ("imagenet", "sketch")
        }
    params = small_params(gate={"minimum": {"sketch": 0.6}})
    verdict = judge_candidate(params, CHAMPION, tmp_path)
    found = judge_outcomes(
        params.retraining.gate, params.report.confidence, len(CLASSES), *arrays.values()
    )
    assert [c.model_copy(update={"said": ""}) for c in found] == [
        c.model_copy(update={"said": ""}) for c in verdict.criteria
    ]


def test_the_expected_maximum_of_normal_values():
    assert compute_expected_maximum(1) == pytest.approx(0, abs=1e-8)
    assert compute_expected_maximum(2) == pytest.approx(np.pi**-0.5)
    draws = np.random.default_rng(0).normal(size=(200_000, 26)).max(axis=1)
    assert compute_expected_maximum(26) == pytest.approx(draws.mean(), abs=0.005)


@pytest.mark.slow
def test_the_winners_bias_is_what_the_best_of_equal_candidates_gains():
    """Ten models of the same true top-1 on the same images, the best of them again and again."""
    rng, n, count = np.random.default_rng(0), 2000, 10
    gains, biases = [], []
    for _ in range(300):
        difficulty = rng.normal(0, 0.7**0.5, n)
        tops = difficulty + rng.normal(0, 0.3**0.5, (count, n)) < 0.5
        shared = tops.mean()  # what these images make of all models alike
        gains.append(tops.mean(axis=1).max() - shared)
        moved = tops[0].astype(float) - tops[1]
        half = 1.96 * moved.std() / n**0.5
        pair = Estimate(moved.mean(), moved.mean() - half, moved.mean() + half)
        biases.append(estimate_winner_bias(pair, 0.95, count))
    assert np.mean(gains) == pytest.approx(np.mean(biases), rel=0.05)


def test_the_number_of_candidates_and_the_bias_are_said(tmp_path):
    for name in ("imagenet", "sketch"):
        plant(tmp_path, name, 0.0, 0.0)

    def judge(count: int) -> GateVerdict:
        return judge_candidate(small_params(), CHAMPION, tmp_path, validation="a", candidates=count)

    assert describe_trials(judge(1)).startswith("The first candidate that is tried on")
    verdict = judge(5)
    difference = find(verdict, "val")
    error = (difference.high - difference.low) / 2 / 1.96
    assert (verdict.candidates, verdict.validation) == (5, "a")
    assert verdict.winner_bias == pytest.approx(1.163 * error / 2**0.5, rel=1e-3)  # Harter 1961
    assert describe_trials(verdict) == (
        "5 candidates were tried on these validation images, with this one. The best of as many "
        f"equally good ones looks {100 * verdict.winner_bias:.1f} points better there than it is "
        "(winner's bias)."
    )
