"""The headline says no more than the simultaneous intervals allow, in the words that the number of
seeds allows.
"""

import pytest

from densecl.analysis.comparison import SHIFTED_MEAN, get_significance
from densecl.analysis.results import Comparison, MetricRow
from densecl.artifacts import ReportPlan
from densecl.config.params import ReportParams
from densecl.report.summary import build_details, build_headline
from densecl.report.verdicts import describe_families
from tests.cost_factory import make_cost, ratio

SETS = ("imagenet", "imagenet-r", "sketch")
MEAN = SHIFTED_MEAN
UP, DOWN, OPEN = (0.021, 0.008, 0.034), (-0.05, -0.08, -0.02), (0.01, -0.01, 0.03)
FEW = "One seed: no statement about the modes."


def compared(
    rows: dict[str, tuple[float, float, float]],
    seeds: str = "0",
    modes=("dense", "none"),
    baseline: str = "none",
) -> Comparison:
    """Differences dense - baseline by place: value and simultaneous interval."""
    plan = ReportPlan(
        modes=modes,
        seeds=tuple(map(int, seeds.split())),
        datasets=SETS,
        protocols={s: s for s in SETS},
        rendered=(),
        values=ReportParams(),
        params={},
    )
    found = Comparison(plan, {(s, m): _Whole() for s in SETS for m in modes})
    for dataset, limits in rows.items():
        add(found, dataset, limits, seeds, baseline)
    return found


def add(found: Comparison, dataset: str, limits, seeds: str, baseline: str = "none") -> None:
    """A difference whose plain interval excludes 0 where the simultaneous one may not."""
    value, low, high = limits
    metric = f"difference_to_{baseline}"
    plain = (value, value - 0.001, value + 0.001)
    found.add_row(MetricRow(dataset, "", "dense", metric, *plain, 100, seeds))
    found.add_row(MetricRow(dataset, "", "dense", f"{metric}_simultaneous", value, low, high))
    found.add_row(MetricRow(dataset, "", "dense", f"{metric}_detectable", 0.03))


class _Whole:
    missing = ()


@pytest.mark.parametrize(
    ("row", "expected"),
    [(UP, 1), (DOWN, -1), (OPEN, 0), ((0.03, -0.001, 0.05), 0), ((0.03, 0.0, 0.05), 0)],
)
def test_the_simultaneous_interval_decides(row, expected):
    found = compared({MEAN: row}, "0 1 2")
    assert get_significance(found, MEAN, "dense", "none") == expected
    said = build_headline(found, None)[0]
    assert ("beats" in said, "falls behind" in said, "do not differ significantly" in said) == (
        expected == 1,
        expected == -1,
        expected == 0,
    )


def test_the_headline_judges_the_mean_alone():
    """The datasets are a family of their own, whose verdicts the first screen does not add to."""
    found = compared({MEAN: OPEN, "imagenet": UP, "sketch": DOWN}, "0 1 2")
    assert build_headline(found, make_cost({"dense": 1.09})) == [
        "Dense and none do not differ significantly on average over 2 shifted sets: "
        "+1.0 points [−1.0, +3.0].",
        "Dense cost 9 % [8, 10] more time.",
    ]


def test_where_no_mean_can_be_formed_the_datasets_are_the_family():
    found = compared({"imagenet": OPEN, "imagenet-r": UP, "sketch": DOWN}, "0 1 2")
    assert build_headline(found, None)[0] == (
        "Dense beats none by 2.1 points [0.8, 3.4] on imagenet-r and falls behind it by 5.0 points "
        "[2.0, 8.0] on sketch; no other difference between the two is statistically significant."
    )
    assert describe_families(found)[1] == ("One family of 3 tests, all datasets and pairs of modes")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (
            "0",
            [
                FEW,
                "Dense-0 falls behind none-0 by 5.0 points [2.0, 8.0] on average over 2 shifted "
                "sets.",
            ],
        ),
        (
            "3 5",
            [
                "Two seeds: no statement about the modes.",
                "Dense-3 and dense-5 fall behind none-3 and none-5 by 5.0 points [2.0, 8.0] on "
                "average over 2 shifted sets.",
            ],
        ),
        (
            "0 1 2",
            ["Dense falls behind none by 5.0 points [2.0, 8.0] on average over 2 shifted sets."],
        ),
    ],
)
def test_below_three_seeds_it_names_these_models(seeds, said):
    found = compared({MEAN: DOWN}, seeds)
    assert build_headline(found, None)[:-1] == said
    assert ("not of the modes" in build_details(found)[0]) == (len(seeds.split()) < 3)


def test_the_fewest_seeds_of_any_judged_difference_count():
    found = compared({"sketch": DOWN}, "0 1 2")
    add(found, "imagenet", OPEN, "1")
    assert build_headline(found, None)[0] == FEW
    assert "From one seed, so this speaks of these models" in build_details(found)[0]


@pytest.mark.parametrize(
    ("seeds", "condition"),
    [
        ("0", "of other seeds nothing is known"),
        ("0 1 2", "images and seeds vary as much as these do"),
    ],
)
def test_power_says_what_it_is_conditional_on(seeds, condition):
    said = build_details(compared({MEAN: OPEN}, seeds))[-1]
    assert "80 % power to detect a difference of 3.0 points" in said
    assert condition in said


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (make_cost({"dense": 1.005}), "Dense cost no more time, within 2 %."),
        (make_cost({"dense": 0.9}), "Dense cost 10 % [9, 11] less time."),
        (make_cost({"dense": 1.9}, ratio(1.0, 0.06)), "What dense costs could not be measured."),
        (make_cost({"dense": 1.9}, ratio(1.05, 0.01)), "What dense costs could not be measured."),
        (make_cost({}), "What dense costs is not known: reports/cost.json is missing."),
        (None, "What dense costs is not known: reports/cost.json is missing."),
    ],
)
def test_no_cost_is_stated_that_was_not_measured(cost, said):
    assert build_headline(compared({MEAN: UP}), cost)[-1] == said


def test_without_none_the_cost_says_beside_what():
    """Step times are taken beside classification alone: "it cost 55 % more" would be read as more
    than global.
    """
    found = compared({MEAN: UP}, modes=("dense", "global"), baseline="global")
    assert build_headline(found, make_cost({"dense": 1.55, "global": 1.2})) == [
        FEW,
        "Dense-0 beats global-0 by 2.1 points [0.8, 3.4] on average over 2 shifted sets.",
        "Beside classification alone, dense cost 55 % [54, 56] more time and global cost 20 % [19, 21] more time.",
    ]


def test_where_none_was_not_evaluated_the_others_are_the_headline():
    found = compared({"sketch": DOWN}, modes=("dense", "global", "none"), baseline="global")
    said = build_headline(found, None)
    assert said[1] == "Dense-0 falls behind global-0 by 5.0 points [2.0, 8.0] on sketch."
    assert not any("global" in text for text in build_details(found))


def test_nothing_compared_is_said():
    assert "cannot be compared" in build_headline(compared({}), {})[0]
    assert build_details(compared({})) == []
