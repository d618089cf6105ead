"""Variants in the report: judged against their base in a family of their own, and nothing that the
page says of dense, global and none changes with them.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densecl import paths
from densecl.analysis.comparison import compare_modes
from densecl.analysis.results import SHIFTED_MEAN
from densecl.artifacts import ReportPlan
from densecl.report.charts.mode_styles import build_variant_css, style_modes
from densecl.report.headline import build_headline
from densecl.report.mode_settings import (
    build_settings_table,
    describe_unequal_training,
    find_differing_settings,
)
from densecl.report.render import write_report
from densecl.report.sections.variants import build_variant_table
from densecl.report.training_results import read_training_results
from tests.report.report_factory import RECORDS, SETS, make, read, value

SEEDS = (0, 1, 2)
# "ink" is also the name of one of the page's own colours; the last is defined, and not run.
VARIANTS = {
    "geometric": {"base": "dense", "contrast": {"correspondence_features": "geometric"}},
    "ink": {"base": "none", "train": {"batch_size": 64}},
    "idle": {"base": "global", "contrast": {"temperature": 0.5}},
}
MODES = ("dense", "global", "none", "geometric", "ink")


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportPlan, str]:
    root = tmp_path_factory.mktemp("varied")
    plan = make(root, MODES, SEEDS, VARIANTS)
    for seed in SEEDS:
        for mode, share in (("dense", 0.4), ("geometric", 1.0)):
            path = root / paths.training_folder(mode, seed) / "history.csv"
            history = pd.read_csv(path).assign(**{"match/pairs/true": share - 0.01 * seed})
            history.to_csv(path, index=False)
    return root, plan, write_report(plan, root, RECORDS)


@pytest.mark.slow
def test_the_first_screen_is_that_of_the_three_modes(varied, several):
    with_variants, without = read(varied[0]), read(several[0])
    of_modes = with_variants[with_variants["mode"].isin(["dense", "global", "none"])]
    pd.testing.assert_frame_equal(of_modes.reset_index(drop=True), without)
    headline, claims = varied[2].split("\n\n")[:2]
    assert several[1].split("\n\n")[:2] == [headline, claims]


def test_a_variant_is_compared_with_its_base_image_by_image(varied):
    root, table = varied[0], read(varied[0])
    for variant, base in (("geometric", "dense"), ("ink", "none")):
        gaps = []
        for dataset in SETS:
            frames = [
                pd.read_parquet(root / paths.predictions_file(dataset, mode, seed))
                .set_index("image_id")["correct"]
                .astype(float)
                for mode in (variant, base)
                for seed in SEEDS
            ]
            gap = np.mean(frames[:3], axis=0) - np.mean(frames[3:], axis=0)
            row = value(table, dataset, variant, f"difference_to_{base}")
            assert row["value"] == pytest.approx(gap.mean(), abs=1e-9)
            gaps += [gap.mean()] if dataset != "imagenet" else []
        mean = value(table, SHIFTED_MEAN, variant, f"difference_to_{base}")
        assert mean["value"] == pytest.approx(np.mean(gaps), abs=1e-9)
    metrics = {(row.mode, row.metric) for row in table.itertuples()}
    assert ("geometric", "difference_to_none") not in metrics


def test_their_tests_are_one_family(varied):
    """The shifted mean of both variants, and the cost of the one whose steps can be compared."""
    table = read(varied[0])
    for variant, base, is_better in (("geometric", "dense", True), ("ink", "none", False)):
        row = value(table, SHIFTED_MEAN, variant, f"difference_to_{base}_simultaneous")
        assert row["note"] == "family of 3"
        assert (row["low"] > 0) == is_better
    text = (varied[0] / paths.REPORT_TEXT).read_text(encoding="utf-8")
    assert "One family of 3 tests, all verdicts of this table" in text


def test_a_page_of_one_mode_opens_with_what_its_variants_change(tmp_path):
    plan = make(tmp_path, ("dense", "geometric"), SEEDS, VARIANTS)
    better, score = build_headline(compare_modes(plan, tmp_path))
    assert re.fullmatch(
        r"Under distribution shift, geometric beats dense \(\+\d+\.\d points\)\.", better
    )
    assert re.fullmatch(r"On average over 5 shifted sets, dense has a top-1 of .* %\.", score)
    plan = make(tmp_path, ("none", "ink"), SEEDS, VARIANTS)
    same, _ = build_headline(compare_modes(plan, tmp_path))
    assert same == "This run cannot tell ink from none on any claim."


@pytest.mark.slow
def test_the_table_says_what_each_variant_changes_and_gains(varied):
    root, plan, _ = varied
    results = read_training_results(plan, root, RECORDS)
    table = build_variant_table(compare_modes(plan, root, results.cost), results)
    assert table is not None
    columns = [column for _, names in table.groups for column in names]
    rows = {
        label: (about, dict(zip(columns, cells, strict=True))) for label, about, cells in table.rows
    }
    assert list(rows) == ["geometric", "ink"]
    about, cells = rows["geometric"]
    assert about == "dense with contrast.correspondence_features geometric"
    assert cells["Distribution shift"].verdict == "better"
    matches = cells["pairs of the loss"]
    assert (matches.main, matches.sub) == ("99.0", "dense 39.0")
    assert cells["finished"].main == "3 of 3"
    # Steps of 0.26 and 0.31 s.
    assert cells["time of a step"].main == "−16 % time"
    assert cells["time of a step"].verdict == "better"
    about, cells = rows["ink"]
    assert about == "none with train.batch_size 64"
    assert cells["pairs of the loss"].main == "–"
    assert cells["time of a step"].main == "not measured"
    assert "batch_size 64 instead of 256: its steps have no ratio" in cells["time of a step"].sub
    losses = [
        pd.read_csv(root / paths.training_folder("ink", seed) / "history.csv")[
            "classification_loss"
        ].iloc[-1]
        for seed in SEEDS
    ]
    assert cells["spread of the loss"].main == f"{np.std(losses, ddof=1):.3f}"


@pytest.mark.slow
def test_a_variant_that_lacks_a_set_takes_it_from_no_other_mode(tmp_path):
    plan = make(tmp_path, ("dense", "none", "geometric"), (0, 1), VARIANTS)
    (tmp_path / paths.evaluation_file("sketch", "geometric", 1)).unlink()
    comparison = compare_modes(plan, tmp_path)
    assert "sketch" in comparison.complete_sets
    assert comparison.rows[SHIFTED_MEAN, "dense", "top1"].value is not None
    for metric in ("top1", "difference_to_dense"):
        row = comparison.rows[SHIFTED_MEAN, "geometric", metric]
        assert row.value is None
        assert "sketch: seed 1: no file" in row.note
    table = build_variant_table(comparison, read_training_results(plan, tmp_path, RECORDS))
    assert table is not None
    assert [cells[2].main for _, _, cells in table.rows] == ["not measured"]


def test_the_settings_that_differ_are_listed(varied):
    assert find_differing_settings(varied[1]) == {
        "contrast.correspondence_features": {"dense": "dense", "geometric": "geometric"},
        "train.batch_size": {"dense": 256, "global": 256, "none": 256, "geometric": 256, "ink": 64},
    }
    assert describe_unequal_training(varied[1]) == []  # of the three modes nothing differs
    params = {"train": {"epochs": 9, "dense": {"learning_rate": 0.01}}}
    plan = ReportPlan(
        modes=("dense", "none"),
        seeds=(0,),
        datasets=(),
        protocols={},
        rendered=(),
        values=varied[1].values,
        params=params,
    )
    assert describe_unequal_training(plan) == [
        "The modes differ in train.learning_rate (dense 0.01, none 1e-05)."
    ]
    equal = plan.model_copy(update={"params": {"train": {"epochs": 9}}})
    assert build_settings_table(equal) is None


def test_every_variant_has_a_style_that_the_page_defines():
    styles = style_modes(["none", *(f"v{i}" for i in range(60))])
    assert styles["none"].css_class == "none"
    first = [(style.colour, style.marker) for style in list(styles.values())[:25]]
    assert len(set(first)) == 25
    css = build_variant_css()
    for style in list(styles.values())[1:]:
        assert f"--{style.variable}: #" in css
        assert all(f".key.{name} {{" in css for name in style.css_class.split())


def test_the_page_colours_variants_by_styles_that_exist(varied):
    page = (varied[0] / paths.REPORT_PAGE).read_text(encoding="utf-8")
    defined = set(re.findall(r"(--[\w-]+):", page))
    used = set(re.findall(r"var\((--[\w-]+)", page))
    assert used <= defined | {"--from", "--to", "--share", "--mode"}
    assert '<i class="key variant-0 shape-0"></i>geometric' in page
    assert '<i class="key variant-1 shape-0"></i>ink' in page
