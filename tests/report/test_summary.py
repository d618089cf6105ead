"""The headline says no more than the simultaneous intervals allow, in the words that the number of
seeds allows.
"""

import pytest

from densecl.analysis.claims import SHIFT
from densecl.analysis.comparison import SHIFTED_MEAN, get_significance
from densecl.analysis.results import Comparison, MetricRow
from densecl.artifacts import ReportPlan
from densecl.config.params import ReportParams
from densecl.cost.result import CostReport
from densecl.report.claims import build_claim_table
from densecl.report.headline import build_headline
from densecl.report.summary import build_details
from densecl.report.verdicts import AT_CHANCE, describe_families, describe_needed, judge_claim
from tests.cost_factory import make_cost, ratio

SETS = ("imagenet", "imagenet-r", "sketch")
MEAN = SHIFTED_MEAN
UP, DOWN, OPEN = (0.021, 0.008, 0.034), (-0.05, -0.08, -0.02), (0.01, -0.01, 0.03)
UNKNOWN = "What dense costs is not known: "
FEW = "One seed: no statement about the modes."


def compared(
    rows: dict[str, tuple[float, float, float]],
    seeds: str = "0",
    modes=("dense", "none"),
    baseline: str = "none",
    cost: CostReport | None = None,
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
    found = Comparison(plan, {(s, m): _Whole() for s in SETS for m in modes}, cost=cost)
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
    said = build_headline(found)[0]
    assert ("beats" in said, "falls behind" in said, "cannot tell" in said) == (
        expected == 1,
        expected == -1,
        expected == 0,
    )


def test_the_headline_judges_the_claim_alone():
    """The datasets are a family of their own, whose verdicts the first screen does not add to."""
    found = compared({MEAN: OPEN, "imagenet": UP, "sketch": DOWN}, "0 1 2")
    found.cost = make_cost({"dense": 1.09})
    first, nearest, cost = build_headline(found)
    assert first == "This run cannot tell dense from none on the only claim that was measured."
    assert nearest == "Differences like those seen would take more than 50 seeds to call."
    assert cost == (
        "No benefit was measured that pays for dense, which cost 9 % [8, 10] more time per training "
        "step than none."
    )


def test_what_would_decide_is_the_smallest_number():
    found = compared({MEAN: OPEN}, "0 1 2", modes=("dense", "global", "none"))
    add(found, MEAN, OPEN, "0 1 2", "global")
    for baseline, seeds, images in (("none", 21, 4.01), ("global", 9, None)):
        metric = f"difference_to_{baseline}_needed"
        found.add_row(MetricRow(MEAN, "", "dense", f"{metric}_seeds", seeds, seeds="0 1 2"))
        found.add_row(MetricRow(MEAN, "", "dense", f"{metric}_images", images, seeds="0 1 2"))
    assert build_headline(found)[1] == (
        "If the differences seen are real, the nearest to a decision is distribution shift, "
        "dense against global (+1.0 points): about 9 seeds instead of 3."
    )
    assert describe_needed(found, MEAN, ("dense", "none")) == "21 seeds or 4.1 × the images"
    assert describe_needed(found, MEAN, ("dense", "global")) == "9 seeds"


def test_where_no_claim_was_measured_the_datasets_are_the_family():
    found = compared({"imagenet": OPEN, "imagenet-r": UP, "sketch": DOWN}, "0 1 2")
    assert build_headline(found)[:3] == [
        "On imagenet-r, dense beats none (+2.1 points).",
        "On sketch, dense falls behind none (−5.0 points).",
        "Not decided at this size: imagenet.",
    ]
    assert describe_families(found)[0] == "One family of 3 tests, all verdicts of this screen"


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("0", [FEW, "Under distribution shift, dense-0 falls behind none-0 (−5.0 points)."]),
        (
            "3 5",
            [
                "Two seeds: no statement about the modes.",
                "Under distribution shift, dense-3/5 fall behind none-3/5 (−5.0 points).",
            ],
        ),
        ("0 1 2", ["Under distribution shift, dense falls behind none (−5.0 points)."]),
    ],
)
def test_below_three_seeds_it_names_these_models(seeds, said):
    found = compared({MEAN: DOWN}, seeds)
    assert build_headline(found)[:-1] == said
    assert ("not of the modes" in build_details(found)[0]) == (len(seeds.split()) < 3)


def test_a_claim_with_fewer_seeds_is_spoken_of_by_itself():
    """Names and limits are those of the seeds that each difference was really taken of."""
    found = compared({"sketch": DOWN, "imagenet-r": UP}, "0 1 2")
    add(found, "imagenet", OPEN, "1 2")
    add(found, "imagenet-r", UP, "1")
    said = build_headline(found)
    assert said[:5] == [
        "imagenet: two seeds (1, 2), so no statement about the modes there.",
        "imagenet-r: one seed (1), so no statement about the modes there.",
        "On imagenet-r, dense-1 beats none-1 (+2.1 points).",
        "On sketch, dense falls behind none (−5.0 points).",
        "Not decided at this size: imagenet.",
    ]
    details = build_details(found)
    assert details[0].startswith("From 3 seeds, so this speaks of the modes")
    assert details[1].startswith("Not so on imagenet and imagenet-r: ")
    assert "of other seeds nothing is known" in details[2]


def test_pairs_of_one_claim_with_other_seeds_have_a_sentence_each():
    found = compared({MEAN: UP}, "0 1 2", modes=("dense", "global", "none"))
    add(found, MEAN, DOWN, "0 2", "global")
    assert build_headline(found)[:3] == [
        "Distribution shift (dense − global): two seeds (0, 2), so no statement about the modes "
        "there.",
        "Under distribution shift, dense beats none (+2.1 points).",
        "Under distribution shift, dense-0/2 fall behind global-0/2 (−5.0 points).",
    ]


def test_undecided_differences_are_named_by_their_own_seeds():
    found = compared({MEAN: OPEN}, "0 1 2", modes=("dense", "global", "none"))
    add(found, MEAN, OPEN, "0", "global")
    said = build_headline(found)
    assert said[1] == (
        "This run cannot tell dense from none on distribution shift, or dense-0 from global-0 on "
        "distribution shift."
    )
    power = [text for text in build_details(found) if "80 % power to detect" in text]
    assert "images and seeds vary as much as these do" in power[0]
    assert power[1].startswith("Where two modes are not distinguishable with fewer than three")


SMALL = (0.077, 0.064, 0.09)


@pytest.mark.parametrize(
    ("limits", "scores", "said"),
    [
        (SMALL, (0.323, 0.246), "better"),
        (SMALL, (0.081, 0.004), AT_CHANCE),
        ((0.077, -0.01, 0.16), (0.323, 0.246), AT_CHANCE),
    ],
)
def test_a_called_difference_is_at_chance_only_if_both_scores_are(limits, scores, said):
    found = compared({MEAN: limits}, "0 1 2")
    for mode, score in zip(("dense", "none"), scores, strict=True):
        found.add_row(MetricRow(MEAN, "", mode, "top1", score, 0.003, score + 0.25))
        found.add_row(MetricRow(MEAN, "", mode, "chance", 0.083))
    assert judge_claim(found, SHIFT, ("dense", "none")) == said


def test_a_pair_at_chance_beside_a_decided_one_has_a_clause_of_its_own():
    found = compared({MEAN: UP}, "0 1 2", modes=("dense", "global", "none"))
    add(found, MEAN, OPEN, "0 1 2", "global")
    for mode, low in (("dense", 0.05), ("global", 0.04), ("none", 0.09)):
        found.add_row(MetricRow(MEAN, "", mode, "top1", 0.12, low, 0.2))
        found.add_row(MetricRow(MEAN, "", mode, "chance", 0.083))
    assert build_headline(found)[0] == (
        "Under distribution shift, dense beats none (+2.1 points); dense and global are too close "
        "to guessing to compare."
    )


@pytest.mark.parametrize(
    ("seeds", "condition"),
    [
        ("0", "of other seeds nothing is known"),
        ("0 1 2", "images and seeds vary as much as these do"),
    ],
)
def test_power_says_what_it_is_conditional_on(seeds, condition):
    said = build_details(compared({MEAN: OPEN}, seeds))
    assert "80 % power to detect a difference of 3.0 points" in said[-2]
    assert condition in said[-2]
    assert "if it and the variances seen are the true ones" in said[-1]


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (
            make_cost({"dense": 1.005}),
            "Dense cost no more time per training step, within 2 %, than none.",
        ),
        (
            make_cost({"dense": 0.9}),
            "Dense cost 10 % [9, 11] less time per training step than none.",
        ),
        (make_cost({"dense": 1.9}, ratio(1.0, 0.06)), UNKNOWN + "it could not be measured."),
        (make_cost({"dense": 1.9}, ratio(1.05, 0.01)), UNKNOWN + "it could not be measured."),
        (make_cost({}), UNKNOWN + "dense is not in reports/cost.json."),
        (None, UNKNOWN + "no file reports/cost.json."),
    ],
)
def test_no_cost_is_stated_that_was_not_measured(cost, said):
    found = compared({MEAN: UP}, cost=cost)
    assert build_headline(found)[-1] == said
    if said.startswith(UNKNOWN):
        cell = build_claim_table(found).rows[-1][2][0]
        assert f"{UNKNOWN}{cell.sub.removeprefix('Cost: ')}." == said


def test_without_none_the_cost_is_beside_the_other_mode():
    """Step times are taken beside classification alone: the quotient of the two is not as sure as
    either of them.
    """
    cost = make_cost({"dense": 1.55, "global": 1.2})
    found = compared({MEAN: UP}, modes=("dense", "global"), baseline="global", cost=cost)
    said = build_headline(found)
    assert said[:2] == [
        FEW,
        "Under distribution shift, dense-0 beats global-0 (+2.1 points).",
    ]
    assert said[2].startswith("Dense cost 29 % [27, 31] more time per training step than global")


def test_a_cost_without_the_other_mode_is_said():
    cost = make_cost({"dense": 1.55})
    found = compared({MEAN: UP}, modes=("dense", "global"), baseline="global", cost=cost)
    assert build_headline(found)[-1] == UNKNOWN + "global is not in reports/cost.json."


def test_an_undecided_pair_without_evidence_is_not_named():
    found = compared({MEAN: OPEN}, "0 1 2", modes=("dense", "global", "none"), baseline="global")
    assert build_headline(found)[0] == (
        "This run cannot tell dense from global on the only claim that was measured."
    )


def test_a_pair_without_evidence_is_left_out_of_the_sentence():
    found = compared({"sketch": DOWN}, modes=("dense", "global", "none"), baseline="global")
    said = build_headline(found)
    assert said[1] == "On sketch, dense-0 falls behind global-0 (−5.0 points)."
    assert not any("global" in text for text in build_details(found))


def test_nothing_compared_is_said():
    assert "cannot be compared" in build_headline(compared({}))[0]
    assert build_details(compared({})) == []
