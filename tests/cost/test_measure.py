"""Ratios with their intervals, on a clock that the test moves: no test waits or times anything."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import gmean, ttest_1samp

from densecl.config.params import load_params, parse_params
from densecl.cost import measure
from densecl.cost.measure import compute_diagnostic_share, compute_ratios, measure_cost
from densecl.cost.ratio import CONFIDENCE, MIN_ROUNDS, compute_ratio
from densecl.cost.result import CostReport
from densecl.cost.steps import TrainingSize
from densecl.cost.timing import CHECK_EVERY, order_steps, time_rounds
from steps.unit_plans import resolve_cost_plan

SMALL = Path(__file__).parents[1] / "small.yaml"
SIZE = TrainingSize(images=120, classes=10)
PLAN = resolve_cost_plan(load_params(SMALL))
# Seconds of a step.
SECONDS = {
    "dense": 1.5,
    "dense diagnostic": 2.5,
    "global": 1.2,
    "global diagnostic": 1.2,
    "none": 1.0,
    "none again": 1.0,
    "one view": 0.5,
}

RARE = {name for name in SECONDS if name.endswith("diagnostic")}


class Machine:
    """A clock that steps move; `seconds(step, round)` is what a step takes."""

    def __init__(self, seconds: Callable[[str, int], float]) -> None:
        self.now, self.seconds = 0.0, seconds
        self.taken: list[str] = []

    def read_clock(self) -> float:
        return self.now

    def build_steps(self) -> dict[str, Callable[[], None]]:
        return {name: lambda name=name: self._take(name) for name in SECONDS}

    def _take(self, name: str) -> None:
        self.now += self.seconds(name, self.taken.count(name))
        self.taken.append(name)


def measured(machine: Machine, monkeypatch: pytest.MonkeyPatch, seconds: float) -> CostReport:
    monkeypatch.setattr(measure, "measure_added_memory", lambda plan, size, kind: 10**6)
    monkeypatch.setattr(
        measure,
        "build_timed_steps",
        lambda plan, size: (machine.build_steps(), dict.fromkeys(("dense", "global", "none"), 7)),
    )
    budget = PLAN.budget.model_copy(update={"seconds": seconds, "precision": 0.03})
    return measure_cost(PLAN.model_copy(update={"budget": budget}), SIZE, machine.read_clock)


def test_interval_is_that_of_the_mean_logarithm():
    """Derived again by scipy's one-sample t-test."""
    ratios = np.random.default_rng(0).lognormal(0.3, 0.1, 20)
    found = compute_ratio(ratios.tolist(), [1.0] * 20, factor=2.0)
    low, high = ttest_1samp(np.log(ratios), 0).confidence_interval(CONFIDENCE)
    assert (found.low, found.high) == pytest.approx((2 * np.exp(low), 2 * np.exp(high)))
    assert found.value == pytest.approx(2 * gmean(ratios))


def test_fewer_than_eight_rounds_have_no_interval():
    found = compute_ratio([2.0] * 7, [1.0] * 7)
    assert (found.value, found.low, found.high, found.width) == (2.0, None, None, math.inf)
    assert not found.contains(2.0)
    assert compute_ratio([2.0] * 8, [1.0] * 8).contains(2.0)


def test_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    times = rng.lognormal(0, 0.2, (2, 2000, 24))  # the ratios' logarithms have mean 0
    hits = [compute_ratio(a.tolist(), b.tolist()).contains(1.0) for a, b in times.swapaxes(0, 1)]
    assert np.mean(hits) >= CONFIDENCE - 0.005


@pytest.mark.parametrize("noise", [0.005, 0.02])
def test_stopping_at_a_narrow_interval_does_not_make_it_miss(noise):
    """As `time_rounds` stops: at the first fourth round with a narrow interval."""
    rng, hits = np.random.default_rng(0), []
    for ratios in rng.lognormal(0, noise, (400, 200)):
        looks = (compute_ratio(ratios[:n], [1.0] * n) for n in range(MIN_ROUNDS, 200, CHECK_EVERY))
        hits.append(next(found for found in looks if found.width < 0.03).contains(1.0))
    assert np.mean(hits) >= 0.98


def test_a_load_that_comes_and_goes_cancels_in_the_round():
    steady, loaded = [1.5] * 20, [1.5, 4.5] * 10
    found, expected = (compute_ratio(loaded, [1.0, 3.0] * 10), compute_ratio(steady, [1.0] * 20))
    assert found.model_dump() == pytest.approx(expected.model_dump())


def test_slower_steps_are_found_and_diagnostic_ones_count_by_their_share(monkeypatch):
    rng = np.random.default_rng(0)
    machine = Machine(lambda name, _: SECONDS[name] * rng.normal(1, 0.005))
    cost = measured(machine, monkeypatch, 1000.0)
    assert cost.is_measured
    share = compute_diagnostic_share(PLAN, SIZE)
    assert share == pytest.approx(2 / 3)  # the first and the last of three steps
    for mode, expected in (("dense", 1.5 + share), ("global", 1.2), ("none", 1.0)):
        step = cost.modes[mode]
        assert step.against_none.value == pytest.approx(expected, rel=0.01)
        assert step.against_one_view.value == pytest.approx(2 * expected, rel=0.01)
        assert step.against_none.width < 0.03 * expected
        assert step.seconds == pytest.approx(expected, rel=0.01)
    assert 8 <= cost.rounds < 100  # precise long before the time is over


@pytest.mark.parametrize("disturb", ["shift", "noise"])
def test_a_disturbed_control_refuses(monkeypatch, disturb):
    rng = np.random.default_rng(0)

    def seconds(name: str, _: int) -> float:
        if disturb == "shift":
            return SECONDS[name] * (1.04 if name == "none again" else rng.normal(1, 0.005))
        return SECONDS[name] * rng.lognormal(0, 0.3)

    cost = measured(Machine(seconds), monkeypatch, 300.0)
    assert not cost.is_measured
    assert cost.control.contains(1.0) == (disturb == "noise")


def test_time_is_kept_and_too_few_rounds_refuse(monkeypatch):
    machine = Machine(lambda name, _: SECONDS[name])
    cost = measured(machine, monkeypatch, 30.0)  # a round takes 8.9 s, or 5.2 s without diagnostics
    assert cost.rounds == 4
    assert machine.taken.count("dense diagnostic") == 2  # once to warm up
    assert machine.now == pytest.approx(5 * sum(SECONDS.values()) - 3 * (2.5 + 1.2))
    assert not cost.is_measured


def test_the_warm_up_is_left_out():
    machine = Machine(lambda name, round_: 100.0 if round_ == 0 else SECONDS[name])
    times = time_rounds(machine.build_steps(), RARE, 1e9, lambda _: True, machine.read_clock)
    assert {name: set(np.round(seconds, 9)) for name, seconds in times.items()} == {
        name: {seconds} for name, seconds in SECONDS.items()
    }
    assert len(times["none"]) == 8
    assert len(times["dense diagnostic"]) == 2


def test_no_step_always_follows_the_same_one():
    names = list("abcde")
    orders = [order_steps(names, round_) for round_ in range(10)]
    assert all(sorted(order) == names for order in orders)
    assert {order[0] for order in orders} == {order[-1] for order in orders} == set(names)
    before = {(b, a) for order in orders for a, b in pairwise(order)}
    assert all(len({a for b, a in before if b == name}) == 2 for name in names)


def test_ratios_are_against_the_mean_of_both_none_steps():
    times = {name: [seconds] * 8 for name, seconds in SECONDS.items()} | {"none again": [3.0] * 8}
    times |= {name: times[name][:2] for name in RARE}
    ratios = compute_ratios(times, ["dense", "none"], share=0.1)
    assert ratios.against_none["dense"].value == pytest.approx(0.8)
    assert ratios.against_none["none"].value == 1.0
    assert ratios.control.value == pytest.approx(3.0)


def test_what_shapes_no_step_measures_nothing_again():
    params = load_params(SMALL)
    values = params.model_dump(mode="json", by_alias=True)
    values["train"] |= {"epochs": 9, "learning_rate": 0.5, "weight_decay": 0.1}
    values["contrast"] |= {"lambda_weight": 0.1, "temperature": 0.7}
    values["seeds"] = [4, 5]
    assert resolve_cost_plan(parse_params(values, "")) == resolve_cost_plan(params)
    values["contrast"]["patches_per_image"] = 9
    assert resolve_cost_plan(parse_params(values, "")) != resolve_cost_plan(params)
