"""Two experiments with planted differences, compared and counted again from the prediction
files.
"""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
import yaml

from densecl import paths
from densecl.analysis.differences import SHIFTED_MEAN
from densecl.analysis.dvc_lock import read_lock
from densecl.compare.changes import find_changes
from densecl.compare.differences import Delta, ExperimentComparison, compare_experiments
from densecl.compare.page import write_comparison
from densecl.compare.read import Origin, read_experiment
from densecl.compare.summary import format_verdict
from densecl.errors import DenseclError
from tests.cost_factory import make_cost, ratio
from tests.page_checks import faults
from tests.report.factories import WNIDS, Planted, write

PLANTED = Planted(gains={("dense", "sketch"): -0.05}, of_luck=3)
ROOT = Path(__file__).parents[2]
HOSTILE = "<script>alert('x')</script>|[a](b) @everyone #1 https://example.com\n# `x`"


def compared(a: Path, b: Path) -> ExperimentComparison:
    return compare_experiments(
        read_experiment(Origin("before", a)), read_experiment(Origin("after", b))
    )


def pages(a: Path, b: Path, folder: Path) -> tuple[str, str, str]:
    """Terminal, HTML and Markdown."""
    found = compared(a, b)
    told = write_comparison(found, find_changes(found, (read_lock(a), read_lock(b))), folder)
    return told, *(
        (folder / f"compare.{kind}").read_text(encoding="utf-8") for kind in ("html", "md")
    )


def line(found: ExperimentComparison, dataset: str, mode: str) -> Delta:
    return next(each for each in found.deltas if (each.dataset, each.mode) == (dataset, mode))


@pytest.fixture(scope="session")
def before(tmp_path_factory) -> Path:
    return Planted().write(tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="session")
def after(tmp_path_factory) -> Path:
    return PLANTED.write(tmp_path_factory.mktemp("after"))


def correct(root: Path, dataset: str, mode: str) -> pd.Series:
    rows = pd.read_parquet(root / paths.predictions_file(dataset, mode, 0)).set_index("image_id")
    return rows["correct"].astype(float)


def test_a_planted_difference_is_called_and_a_null_is_not(before, after):
    found = compared(before, after)
    assert [(each.dataset, each.mode) for each in found.select_by_call("worse")] == [
        ("sketch", "dense"),
        (SHIFTED_MEAN, "dense"),
    ]
    assert not found.select_by_call("better")
    assert {each.call for each in found.deltas if each.mode == "none"} == {"open"}
    said = format_verdict(found)
    assert said.startswith(
        "One seed: no statement about what was changed. "
        "B is worse than A on the mean of the shifted datasets (dense: −"
    )
    assert ", sketch (dense: −" in said or " and sketch (dense: −" in said
    assert said.endswith("; better nowhere; 5 cells are undecided.")


def test_numbers_are_those_of_the_prediction_files(before, after):
    found = compared(before, after)
    for dataset in ("imagenet", "imagenet-r", "sketch"):
        one, two = (correct(root, dataset, "dense").to_numpy() for root in (before, after))
        each = line(found, dataset, "dense")
        assert each.images == 2000
        assert (each.a, each.b) == pytest.approx((one.mean(), two.mean()))
        assert each.difference.value == pytest.approx((two - one).mean())
        gap, n = two - one, 2000  # with one image more for either side
        error = math.sqrt(np.abs(gap).sum() + 2 - (n - 2) * gap.mean() ** 2) / (n + 2)
        for interval, tests in ((each.difference, 1), (each.simultaneous, 8)):
            half = NormalDist().inv_cdf(1 - 0.05 / tests / 2) * error
            limits = each.difference.value - half, each.difference.value + half
            assert (interval.low, interval.high) == pytest.approx(limits, abs=1e-9)
        assert each.family == 8  # three sets and the mean, of two modes
        p = min(1.0, 8 * 2 * NormalDist().cdf(-abs(each.difference.value) / error))
        assert each.simultaneous.p == pytest.approx(p, rel=1e-6, abs=1e-13)
    shifted = [
        (correct(after, s, "dense") - correct(before, s, "dense")).mean()
        for s in ("imagenet-r", "sketch")
    ]
    assert line(found, SHIFTED_MEAN, "dense").difference.value == pytest.approx(np.mean(shifted))


@pytest.mark.slow
def test_scores_at_chance_are_named_wherever_their_numbers_stand(tmp_path, before):
    """Of ten classes: 0.1 is a guess; B's dense guesses on sketch, and so does both sides' none."""
    assert not any(delta.at_chance for delta in compared(before, before).deltas)
    guesses = {("none", "sketch"): -0.4}
    a = Planted(gains=guesses).write(tmp_path / "a")
    b = Planted(gains={**guesses, ("dense", "sketch"): -0.4}, of_luck=3).write(tmp_path / "b")
    found = compared(a, b)
    at_chance = {(d.dataset, d.mode): d.at_chance for d in found.deltas if d.at_chance}
    assert at_chance == {("sketch", "dense"): ("B",), ("sketch", "none"): ("A", "B")}
    assert line(found, "sketch", "dense").call == "worse"
    assert line(found, SHIFTED_MEAN, "none").chance == pytest.approx(0.1)
    for text in pages(a, b, tmp_path):
        assert "A and B at chance (10.0 %)" in text
        assert (
            "not shown to be better than guessing: sketch (dense: B), sketch (none: A and B)."
        ) in text
    given = tmp_path / "given"  # a protocol of groups states its own chance level
    shutil.copytree(b, given)
    for file in (given / paths.EVALUATION).glob("*/sketch.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chance": 0.9}))
    assert line(compared(given, given), "sketch", "dense").chance == 0.9


@pytest.mark.slow
def test_false_calls_are_as_rare_as_the_level_says(tmp_path, before):
    """40 nulls of two modes with three sets each, one family: it allows 5 % of them; 7 would come
    about once in 200 times.
    """
    called = 0
    for luck in range(2, 42):
        null = Planted(of_luck=luck, images=400, redrawn=0.3)
        a, b = Planted(images=400).write(tmp_path / f"a{luck}"), null.write(tmp_path / f"b{luck}")
        called += bool(compared(a, b).select_by_call("better", "worse"))
    assert called < 7


@pytest.mark.parametrize("seeds", [(0,), (0, 1), (0, 1, 2)])
def test_a_and_b_exchanged_give_the_same_numbers_with_the_other_sign(tmp_path, seeds):
    way = {"seeds": seeds, "images": 400, "manifests": False}
    a, b = (
        Planted(**way).write(tmp_path / "a"),
        Planted(**way, of_luck=3, redrawn=0.3).write(tmp_path / "b"),
    )
    for one, two in zip(compared(a, b).deltas, compared(b, a).deltas, strict=True):
        e, other = one.difference, two.difference
        assert (e.value, e.low, e.high, e.p) == (-other.value, -other.high, -other.low, other.p)
        assert one.simultaneous.p == two.simultaneous.p
        assert one.detectable == two.detectable
        assert [x.difference.low for x in one.per_seed] == [
            -x.difference.high for x in two.per_seed
        ]


def test_only_the_same_images_are_compared(tmp_path, before):
    other = Planted(
        of_luck=3, drop={"sketch": range(100)}, redone={"sketch": range(90, 140)}, images=2100
    )
    b = other.write(tmp_path)
    found = compared(before, b)
    each = line(found, "sketch", "none")
    assert [each.unmatched[kind] for kind in ("only_a", "only_b", "changed")] == [100, 100, 40]
    assert each.images == 2000 - 140
    one, two = correct(before, "sketch", "none"), correct(b, "sketch", "none")
    kept = [f"sketch/{i:05d}.png" for i in range(140, 2000)]
    assert (each.a, each.b) == pytest.approx((one[kept].mean(), two[kept].mean()))
    page = pages(before, b, tmp_path / "out")[1]
    assert "left out: 100 in A only, 100 in B only, 40 whose content differs" in page
    assert "2,000" in page
    assert "100 added, 100 removed, 40 with another content" in page


def test_an_image_of_another_class_is_left_out(tmp_path, before):
    path = Planted().write(tmp_path) / paths.manifest_file("sketch")
    frame = pd.read_parquet(path)
    frame.loc[:4, "wnid"] = "n99999999"
    frame.to_parquet(path)
    found = compared(before, tmp_path)
    assert line(found, "sketch", "dense").unmatched["relabelled"] == 5
    assert format_verdict(found).endswith("alike in 6 cells; images are left out of 2 cells.")


def test_without_manifests_images_are_matched_by_name_and_that_is_said(tmp_path, before):
    b = Planted(of_luck=4, manifests=False).write(tmp_path)
    told, page, _ = pages(before, b, tmp_path / "out")
    assert line(compared(before, b), "sketch", "dense").images == 2000
    assert "their contents are unchecked" in told
    assert "no manifest in B" in page


def test_the_intersection_is_compared_and_the_rest_is_said(tmp_path, before):
    other = Planted(
        of_luck=5,
        modes=("global", "none"),
        seeds=(0, 1),
        sets=("imagenet", "sketch", "imagenet-v2"),
    )
    told, _, _ = pages(before, other.write(tmp_path), tmp_path / "out")
    found = compared(before, tmp_path)
    assert {(each.dataset, each.mode) for each in found.deltas} == {
        ("imagenet", "none"),
        ("sketch", "none"),
    }
    assert {each.seeds for each in found.deltas} == {(0,)}
    assert (
        "only A has mode dense; set imagenet-r. Only B has mode global; seed 1; set imagenet-v2"
        in told
    )


@pytest.mark.parametrize(
    "other", [Planted(modes=("global",)), Planted(seeds=(7,)), Planted(sets=("other",))]
)
def test_nothing_in_common_is_an_error_that_says_what_each_has(tmp_path, before, other):
    with pytest.raises(
        DenseclError,
        match=r"nothing to compare: before has datasets imagenet.*after has .*in common",
    ):
        compared(before, other.write(tmp_path))


def test_no_image_in_common_is_an_error(tmp_path, before):
    other = Planted(redone=dict.fromkeys(Planted.sets, range(2000)))
    with pytest.raises(DenseclError, match="no image in common: 2,000 whose content differs"):
        compared(before, other.write(tmp_path))


def test_an_experiment_is_identical_to_itself(tmp_path, before):
    told, page, text = pages(before, before, tmp_path)
    found = compared(before, before)
    assert {each.call for each in found.deltas} == {"identical"}
    assert all(each.difference is None and each.a == each.b for each in found.deltas)
    assert format_verdict(found) == "No difference: A and B answered every image alike in 6 cells."
    assert "From one seed" not in told
    assert "0.0 [" not in told + page + text


def test_the_same_answers_with_other_confidences_are_not_identical(tmp_path, before):
    b = Planted().write(tmp_path)
    path = b / paths.predictions_file("sketch", "none", 0)
    rows = pd.read_parquet(path)
    rows.assign(confidence=rows["confidence"] / 2).to_parquet(path)
    each = line(compared(before, b), "sketch", "none")
    assert each.call == "open"
    assert each.difference.value == 0
    assert each.difference.low < 0 < each.difference.high


@pytest.mark.slow
def test_three_common_seeds_speak_of_the_mode(tmp_path):
    seeds = (0, 1, 2)
    a = Planted(seeds=(*seeds, 9)).write(tmp_path / "a")
    b = Planted(seeds=seeds, gains={("dense", "sketch"): 0.15}, of_luck=1).write(tmp_path / "b")
    found, (told, page, _) = compared(a, b), pages(a, b, tmp_path / "out")
    each = line(found, "sketch", "dense")
    assert each.seeds == seeds
    assert each.call == "better"
    assert [one.seeds for one in each.per_seed] == [(0,), (1,), (2,)]
    assert each.difference.value == pytest.approx(
        np.mean([one.difference.value for one in each.per_seed])
    )
    assert "From 3 common seeds of dense and none, so this speaks of the modes" in told
    assert "these models" not in told
    assert "Seeds separately" in page
    assert "only A has seed 9" in told


def test_other_candidates_are_another_question(tmp_path, before):
    b = Planted(of_luck=1, classes=8, gains={("dense", "sketch"): -0.3}).write(tmp_path)
    found = compared(before, b)
    assert {each.call for each in found.deltas} == {"unlike"}
    each = line(found, "sketch", "dense")
    assert "A chose among 10 classes and B among 8" in each.note
    assert each.unmatched["relabelled"] > 0
    assert (
        "The models know different class lists: 10 in A, 8 in B, 8 in both"
        in pages(before, b, tmp_path / "out")[0]
    )


def test_the_same_candidates_under_other_indices_are_the_same_question(tmp_path, before):
    """B's models know two classes more, so every index differs; the set is scored over the ten that
    both know.
    """
    b = Planted(of_luck=1).write(tmp_path)
    for path in (b / "reports").rglob("*.parquet"):
        rows = pd.read_parquet(path)
        rows.assign(label=rows["label"] + 2, prediction=rows["prediction"] + 2).to_parquet(path)
    for dataset in Planted.sets:
        manifest = pd.read_parquet(b / paths.manifest_file(dataset))
        manifest.assign(label=manifest["label"] + 2).to_parquet(b / paths.manifest_file(dataset))
    write(
        b / paths.model_folder("dense", 0) / "config.json",
        {"classes": ["n00000001", "n00000002", *WNIDS]},
    )
    each = line(compared(before, b), "sketch", "dense")
    assert (each.call, each.images) == ("open", 2000)
    assert each.b == pytest.approx(correct(b, "sketch", "dense").mean())
    assert "10 in A, 12 in B, 10 in both" in pages(before, b, tmp_path / "out")[0]


def test_params_and_cost_that_differ_are_shown(tmp_path, before):
    b = Planted(
        of_luck=1, params={"contrast": {"temperature": 0.1}, "new": {"key": None}}, device="another"
    ).write(tmp_path)
    told, page, text = pages(before, b, tmp_path / "out")
    for shown in (page, text):
        words = re.sub(r"<[^>]*>|[|\s]+", " ", shown)
        assert re.search(r"contrast\.temperature +0\.2 +0\.1 ", words)
        assert re.search(r"new\.key +not there +– ", words)
    assert "different devices (a card and another)" in told
    assert "dense 2.00 [1.99, 2.01] × in A and 2.00 [1.99, 2.01] × in B" in told


def test_damaged_cells_are_missing_and_say_why(tmp_path, before):
    b = Planted(of_luck=1).write(tmp_path)
    (b / paths.predictions_file("sketch", "none", 0)).write_bytes(b"PAR1 and no more")
    (b / paths.predictions_file("sketch", "dense", 0)).unlink()
    found = compared(before, b)
    assert line(found, "sketch", "none").call == "missing"
    assert (
        "no file reports/predictions/dense-0/sketch.parquet" in line(found, "sketch", "dense").note
    )
    assert "2 cells are not comparable" in format_verdict(found)
    assert re.search(
        r"missing +B: seed 0: no file reports/predictions", pages(before, b, tmp_path / "out")[0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("with_plan", [True, False])
def test_files_of_an_earlier_version_are_read(tmp_path, before, with_plan):
    """`<set>/<mode>-<seed>` in place of `<mode>-<seed>/<set>`."""
    b = Planted(gains={("none", "sketch"): -0.2}, of_luck=1).write(tmp_path)
    expected = compared(before, b)
    for folder in (b / paths.EVALUATION, b / paths.PREDICTIONS):
        for path in sorted(folder.glob("*/*")):
            earlier = folder / path.stem / f"{path.parent.name}{path.suffix}"
            earlier.parent.mkdir(exist_ok=True)
            path.rename(earlier)
    if not with_plan:
        (b / paths.plan_file("report")).unlink()
    found = compared(before, b)
    assert found.deltas
    assert {delta.dataset: delta.b for delta in found.deltas} == {
        delta.dataset: delta.b for delta in expected.deltas
    }
    assert line(found, "sketch", "none").call == "worse"


@pytest.mark.slow
@pytest.mark.parametrize("with_plan", [True, False])
def test_variants_are_compared_as_modes_and_other_models_are_not(tmp_path, with_plan):
    """Without a plan, params.yaml names the variants: geo-7 is a run, and resnet-50 none."""
    modes, folders = ("dense", "none", "geo-7"), []
    for number, gains in enumerate(({}, {("geo-7", "sketch"): 0.1})):
        folder = Planted(gains=gains, of_luck=number, modes=modes).write(tmp_path / str(number))
        evaluations = folder / paths.EVALUATION
        shutil.copytree(evaluations / "none-0", evaluations / "resnet-50")
        values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        values["variants"] = {"geo-7": {"base": "none", "train": {"epochs": 7}}}
        (folder / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
        if not with_plan:
            (folder / paths.plan_file("report")).unlink()
        folders.append(folder)
    found = compared(*folders)
    assert set(found.modes) == set(modes)
    assert found.seeds["geo-7"] == (0,)
    assert line(found, "sketch", "geo-7").call == "better"
    page = pages(*folders, tmp_path / "page")[1]
    assert '<i class="key variant-0 shape-0"></i>geo-7' in page
    assert ".key.variant-0 {" in page


def test_predictions_of_another_evaluation_are_not_believed(tmp_path, before):
    b = Planted(of_luck=1).write(tmp_path)
    for mode in ("dense", "none"):
        path = b / paths.evaluation_file("sketch", mode, 0)
        path.write_text(path.read_text().replace('"top1": 0.', '"top1": 0.1'))
    assert "evaluate the cell again" in line(compared(before, b), "sketch", "dense").note


def test_answers_that_their_labels_do_not_judge_are_not_believed(tmp_path, before):
    b = Planted().write(tmp_path)
    path, record = (
        b / of("sketch", "dense", 0) for of in (paths.predictions_file, paths.evaluation_file)
    )
    pd.read_parquet(path).assign(correct=True).to_parquet(path)
    write(record, {**json.loads(record.read_text()), "top1": 1.0})
    assert (
        "`correct` is not what label and prediction say"
        in line(compared(before, b), "sketch", "dense").note
    )


def test_the_same_answers_judged_otherwise_are_not_identical(tmp_path, before):
    b = Planted().write(tmp_path)
    manifest = b / paths.manifest_file("sketch")
    pd.read_parquet(manifest).assign(brightness=0.4).to_parquet(
        manifest
    )  # so that its classes count, not the labels
    path, record = (
        b / of("sketch", "dense", 0) for of in (paths.predictions_file, paths.evaluation_file)
    )
    rows = pd.read_parquet(path)
    rows.assign(label=rows["prediction"], correct=True).to_parquet(path)
    write(record, {**json.loads(record.read_text()), "top1": 1.0})
    assert line(compared(before, b), "sketch", "dense").call == "better"


def test_a_top1_that_is_no_number_is_not_believed(tmp_path, before):
    b = Planted().write(tmp_path)
    write(
        b / paths.evaluation_file("sketch", "dense", 0),
        {"protocol": "sketch", "classes": 10, "top1": math.nan, "per_class": {}},
    )
    assert line(compared(before, b), "sketch", "dense").call == "missing"


@pytest.mark.parametrize("name", ["../sketch", "a/b", ".."])
def test_names_of_a_foreign_plan_lead_nowhere(tmp_path, name):
    Planted().write(tmp_path)
    write(
        tmp_path / paths.plan_file("report"), {"modes": ["none"], "seeds": [0], "datasets": [name]}
    )
    with pytest.raises(DenseclError, match="as the name of a dataset or mode"):
        read_experiment(Origin("x", tmp_path))


def test_hostile_text_stays_text(tmp_path):
    name = "<img src=x onerror=alert(1)> @all"
    hostile = {"sets": ("imagenet", name), "params": {HOSTILE: HOSTILE}, "device": HOSTILE}
    a = Planted(**hostile).write(tmp_path / "a")
    b = Planted(
        **{**hostile, "params": {HOSTILE: "b"}}, of_luck=1, gains={("dense", name): -0.2}
    ).write(tmp_path / "b")
    _, page, text = pages(a, b, tmp_path / "out")
    parsed = Parsed(page)
    assert not parsed.tags & {"script", "img", "a", "iframe"}
    assert HOSTILE in parsed.text
    assert f"B is worse than A on {name}" in parsed.text
    for bare in ("<script", "<img", "@all", "@everyone", "#1", "https://", "\n# "):
        assert bare not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert all(
        row.count("|") - row.count("\\|") in (4, 5, 7, 8)
        for row in text.splitlines()
        if row.startswith("|")
    )


def test_the_page_fetches_nothing(tmp_path, before, after):
    page = pages(before, after, tmp_path)[1]
    assert "default-src 'none'" in page
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|srcset", page)


@pytest.mark.slow
def test_nothing_is_wrong_with_the_page_in_a_browser(browser, tmp_path):
    """All that a comparison can hold: several seeds, cells of every call, and a difference of each
    kind.
    """
    way = {
        "seeds": (0, 1),
        "images": 400,
        "sets": ("imagenet", "imagenet-r", "sketch", "<b>" + "long" * 20),
    }
    a = Planted(**way).write(tmp_path / "a")
    gains = {("dense", "sketch"): -0.3, ("dense", "imagenet"): 0.3}
    b = Planted(
        **way,
        gains=gains,
        of_luck=1,
        params={HOSTILE: "\x1b[2J" + "long" * 40},
        device=HOSTILE,
        redone={"sketch": range(9)},
        drop={"imagenet-r": range(9)},
    ).write(tmp_path / "b")
    (b / paths.predictions_file("imagenet-r", "none", 0)).unlink()
    for root, md5 in ((a, "1" * 32), (b, "2" * 32)):
        stage = {
            "deps": [{"path": "densecl/vit.py", "md5": md5}],
            "outs": [{"path": "models/none/seed-0", "md5": md5}],
        }
        (root / paths.DVC_LOCK).write_text(json.dumps({"stages": {"train@none-0": stage}}))
    pages(a, b, tmp_path)
    assert faults(browser, tmp_path / "compare.html") == []


def test_the_long_table_holds_every_number(tmp_path, before, after):
    pages(before, after, tmp_path)
    frame, found = pd.read_csv(tmp_path / "compare.csv"), compared(before, after)
    top1 = frame[frame["metric"] == "top1"].set_index(["dataset", "mode"])
    for each in found.deltas:
        row = top1.loc[(each.dataset, each.mode)]
        assert (row["difference"], row["low"], row["high"]) == pytest.approx(
            (each.difference.value, each.difference.low, each.difference.high)
        )
        assert row["call"] == each.call
    assert set(frame.loc[frame["metric"] == "step_seconds", "a"]) == {0.2, 0.4}


class Parsed(HTMLParser):
    """Tags and text of a page, and no tag left open."""

    VOID = frozenset({"meta", "link", "line", "circle", "br"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text, self.open = "", []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_costs_of_earlier_versions_are_missing_and_refused_ones_state_no_time(tmp_path, before):
    old = Planted(of_luck=1).write(tmp_path / "old")
    (old / paths.COST).unlink()
    training = old / paths.training_folder("dense", 0) / "cost.json"
    training.parent.mkdir(parents=True)
    training.write_text('{"step_seconds": 0.2, "none_step_seconds": 0.1}')
    _, page, text = pages(before, old, tmp_path / "out")
    assert "A or B has no reports/cost.json" in page
    assert "Cost, A" not in text
    busy = Planted(of_luck=1).write(tmp_path / "busy")
    cost = make_cost({"dense": 2.0}, ratio(1.2), device=Planted.device)
    later = {"written_by": "a later version", **cost.model_dump(mode="json")}
    (busy / paths.COST).write_text(json.dumps(later))
    told, page, _ = pages(before, busy, tmp_path / "out")
    assert "against classification only" not in told
    assert page.count("not measured") >= 3
    metrics = set(pd.read_csv(tmp_path / "out/compare.csv")["metric"])
    assert metrics == {"top1", "memory_bytes"}
