"""The headline says no more than the interval and the corrected p allow, in the words that the
number of seeds allows.
"""

import pytest

from densecl.analysis.comparison import get_significance
from densecl.analysis.results import Comparison, MetricRow
from densecl.artifacts import ReportPlan
from densecl.config.params import ReportParams
from densecl.report.summary import build_details, build_headline
from tests.cost_factory import make_cost, ratio

SETS = ("imagenet", "imagenet-r", "sketch")


def compared(
    rows: dict[str, tuple[float, float, float, float]], seeds: str = "0", modes=("dense", "none")
) -> Comparison:
    """Differences dense - none by set: value, low, high, corrected p."""
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
    for dataset, (value, low, high, p) in rows.items():
        found.add_row(
            MetricRow(dataset, "", "dense", "difference_to_none", value, low, high, 100, seeds)
        )
        found.add_row(MetricRow(dataset, "", "dense", "difference_to_none_p_holm", p))
    return found


class _Whole:
    missing = ()


UP, DOWN, OPEN = (0.021, 0.008, 0.034, 0.01), (-0.05, -0.08, -0.02, 0.001), (0.01, -0.01, 0.03, 0.6)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (UP, 1),
        (DOWN, -1),
        (OPEN, 0),
        ((0.03, 0.005, 0.05, 0.2), 0),
        ((0.03, -0.001, 0.05, 0.04), 0),
        ((0.03, 0.0, 0.05, 0.04), 0),
    ],
)
def test_both_the_interval_and_the_corrected_p_must_say_so(row, expected):
    found = compared({"sketch": row})
    assert get_significance(found, "sketch", "dense", "none") == expected
    said = build_headline(found, None)[0]
    assert ("beats" in said, "falls behind" in said, "do not differ significantly" in said) == (
        expected == 1,
        expected == -1,
        expected == 0,
    )


def test_the_form_of_the_headline():
    found = compared({"imagenet": OPEN, "imagenet-r": OPEN, "sketch": UP}, "0 1 2")
    assert build_headline(found, make_cost({"dense": 1.09})) == [
        "Dense beats none by 2.1 points [0.8, 3.4] on sketch; no other difference between the two is statistically significant.",
        "Dense cost 9 % [8, 10] more time.",
    ]
    assert "so this speaks of the modes" in build_details(found)[-1]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("0", "The dense model falls behind the none model by 5.0 points [2.0, 8.0] on sketch."),
        ("0 1", "The dense models fall behind the none models by 5.0 points [2.0, 8.0] on sketch."),
        ("0 1 2", "Dense falls behind none by 5.0 points [2.0, 8.0] on sketch."),
    ],
)
def test_below_three_seeds_it_speaks_of_these_models(seeds, said):
    found = compared({"sketch": DOWN}, seeds)
    assert build_headline(found, None)[0] == said
    assert ("0.1 to 0.5 points" in build_details(found)[0]) == (len(seeds.split()) < 3)


def test_the_fewest_seeds_of_any_cell_count():
    found = compared({"sketch": DOWN}, "0 1 2")
    found.add_row(MetricRow("imagenet", "", "dense", "difference_to_none", *OPEN[:3], 100, "1"))
    assert build_headline(found, None)[0].startswith("The dense model falls behind the none model")
    assert "From one seed, so this speaks of these models" in build_details(found)[-1]


def test_both_directions_and_the_largest_are_named():
    found = compared({"imagenet": UP, "imagenet-r": DOWN, "sketch": OPEN}, "0 1 2")
    assert build_headline(found, None)[0] == (
        "Dense beats none by 2.1 points [0.8, 3.4] on imagenet and falls behind it by 5.0 points [2.0, 8.0] on imagenet-r; "
        "no other difference between the two is statistically significant."
    )


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (make_cost({"dense": 1.005}), "Dense cost no more time, within 2 %."),
        (make_cost({"dense": 0.9}), "Dense cost 10 % [9, 11] less time."),
        (make_cost({"dense": 1.9}, ratio(1.0, 0.03)), "What dense costs could not be measured."),
        (make_cost({"dense": 1.9}, ratio(1.05, 0.01)), "What dense costs could not be measured."),
        (make_cost({}), "What dense costs is not known: reports/cost.json is missing."),
        (None, "What dense costs is not known: reports/cost.json is missing."),
    ],
)
def test_no_cost_is_stated_that_was_not_measured(cost, said):
    assert build_headline(compared({"sketch": UP}), cost)[1] == said


def test_without_none_the_cost_says_beside_what():
    """Step times are taken beside classification alone: "it cost 55 % more" would be read as more
    than global.
    """
    found = compared({}, modes=("dense", "global"))
    found.add_row(MetricRow("sketch", "", "dense", "difference_to_global", *UP[:3], 100, "0"))
    found.add_row(MetricRow("sketch", "", "dense", "difference_to_global_p_holm", UP[3]))
    assert build_headline(found, make_cost({"dense": 1.55, "global": 1.2})) == [
        "The dense model beats the global model by 2.1 points [0.8, 3.4] on sketch.",
        "Beside classification alone, dense cost 55 % [54, 56] more time and global cost 20 % [19, 21] more time.",
    ]


def test_where_none_was_not_evaluated_the_others_are_the_headline():
    found = compared({}, modes=("dense", "global", "none"))
    found.add_row(MetricRow("sketch", "", "dense", "difference_to_global", *DOWN[:3], 100, "0"))
    found.add_row(MetricRow("sketch", "", "dense", "difference_to_global_p_holm", DOWN[3]))
    said = build_headline(found, None)
    assert (
        said[0]
        == "The dense model falls behind the global model by 5.0 points [2.0, 8.0] on sketch."
    )
    assert not any("global" in text for text in build_details(found))


def test_nothing_compared_is_said():
    assert "cannot be compared" in build_headline(compared({}), {})[0]
    assert build_details(compared({})) == []
