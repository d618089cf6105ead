"""The report of synthetic evaluations with planted differences, counted again from the prediction
files.
"""

import base64
import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densecl import paths
from densecl.analysis.comparison import SHIFTED_MEAN, build_comparison_table, compare_modes
from densecl.artifacts import MissingEvaluation, write_json
from densecl.errors import DataError
from densecl.evaluation.effective_robustness import compute_fit_error, compute_slope
from densecl.report.claims import build_claim_table
from densecl.report.render import TEMPLATES, write_report
from densecl.report.tables import build_aggregate_table, build_difference_table
from densecl.report.verdicts import describe_families
from tests.report.report_factory import PLANTED, RECORDS, SETS, Page, make, predictions, read, value


def test_numbers_are_those_counted_from_predictions(single: tuple[Path, str]) -> None:
    root, _ = single
    rows = read(root)
    for dataset in SETS:
        for mode in ("dense", "none"):
            seen = pd.read_parquet(root / paths.predictions_file(dataset, mode, 0))
            for metric, name in (
                ("top1", "correct"),
                ("top5", "correct5"),
                ("top1_unmasked", "correct_unmasked"),
            ):
                assert value(rows, dataset, mode, metric)["value"] == pytest.approx(
                    seen[name].mean(), abs=1e-9
                )
        dense, none = (
            pd.read_parquet(root / paths.predictions_file(dataset, m, 0)) for m in ("dense", "none")
        )
        both = dense.merge(none, on="image_id")
        gap = both["correct_x"].astype(float) - both["correct_y"].astype(float)
        assert value(rows, dataset, "dense", "difference_to_none")["value"] == pytest.approx(
            gap.mean(), abs=1e-9
        )
        if dataset != "imagenet":
            clean = predictions("imagenet", "dense", 0, 12)
            clean = clean[clean["label"] < SETS[dataset]]
            expected = clean["correct"].mean() - dense["correct"].mean()
            assert value(rows, dataset, "dense", "drop")["value"] == pytest.approx(
                expected, abs=1e-9
            )
    assert set(rows["control"]) <= {"", "imagenet"}


def counted(rows: pd.DataFrame) -> dict[str, float]:
    """Every figure of a set, from its prediction file alone."""
    p, right = rows["confidence"].astype(float).to_numpy(), rows["correct"].astype(float).to_numpy()
    rank = np.argsort(p, kind="stable")
    gap = right - p
    width, mass = np.minimum((p * 15).astype(int), 14), np.array_split(rank, 15)
    cuts = [*range(0, len(p) // 100 * 100, 100)]
    hundreds = [rank[a:b] for a, b in zip(cuts, [*cuts[1:], len(p)], strict=True)]
    return {
        "top1": right.mean(),
        "top5": rows["correct5"].mean(),
        "top1_unmasked": rows["correct_unmasked"].mean(),
        "top5_unmasked": rows["correct5_unmasked"].mean(),
        "mean_confidence": p.mean(),
        "macro_top1": np.mean([g["correct"].mean() for _, g in rows.groupby("label")]),
        "nll": -np.log(rows["p_true"].astype(float)).mean(),
        "ece": sum(abs(gap[width == b].sum()) for b in range(15)) / len(p),
        "ece_equal_mass": sum(abs(gap[part].sum()) for part in mass) / len(p),
        "rms_calibration_error": np.sqrt(
            sum(len(h) / len(p) * gap[h].mean() ** 2 for h in hundreds)
        ),
        "aurra": np.mean(np.cumsum(right[rank[::-1]]) / np.arange(1, len(p) + 1)),
    }


def test_every_figure_of_the_table_is_counted_again_from_predictions(
    single: tuple[Path, str],
) -> None:
    root, _ = single
    table = read(root)
    for dataset in SETS:
        rows = pd.read_parquet(root / paths.predictions_file(dataset, "dense", 0))
        for metric, expected in counted(rows).items():
            assert value(table, dataset, "dense", metric)["value"] == pytest.approx(
                expected, abs=2e-6
            ), (dataset, metric)
        if dataset != "imagenet":
            clean = predictions("imagenet", "dense", 0, 12)
            share = rows["correct"].mean() / clean[clean["label"] < SETS[dataset]]["correct"].mean()
            row = value(table, dataset, "dense", "relative_accuracy")
            assert row["value"] == pytest.approx(share, abs=1e-9)
            assert row["low"] < share < row["high"]
            reason = value(table, dataset, "dense", "effective_robustness")
            assert pd.isna(reason["value"])
            assert "ImageNet-1k" in reason["note"]
    art = pd.read_parquet(root / paths.predictions_file("imagenet-r", "dense", 0))
    art = art[art["image_id"].str.startswith("imagenet-r/art_")]
    row = value(table, "imagenet-r", "dense", "top1/art")
    assert (row["value"], row["images"]) == (
        pytest.approx(art["correct"].mean(), abs=1e-9),
        len(art),
    )


def test_shape_bias_is_counted_again_image_by_image(
    single: tuple[Path, str], several: tuple[Path, str]
) -> None:
    for (root, _), seeds in ((single, (0,)), (several, (0, 1, 2))):
        shares, decisions = [], []
        for seed in seeds:
            shape = texture = 0
            for row in pd.read_parquet(
                root / paths.predictions_file("stylized", "dense", seed)
            ).itertuples():
                name = re.match(r"stylized/thing(.)\d+-thing(.)1", row.image_id)
                other = "abcdefghij".index(name[2])
                if other < 9 and other != row.label:
                    shape += row.prediction == row.label
                    texture += row.prediction == other
            shares.append(shape / (shape + texture))
            decisions.append(shape + texture)
        row = value(read(root), "stylized", "dense", "shape_bias")
        assert row["value"] == pytest.approx(np.mean(shares), abs=1e-9)
        assert row["images"] == int(np.mean(decisions))
        assert row["low"] < row["value"] < row["high"]


def test_what_a_test_would_have_missed_is_said(single: tuple[Path, str]) -> None:
    root, text = single
    row = value(read(root), "imagenet", "global", "difference_to_none_detectable")
    assert row["note"] == "80 % power, family of 17"
    assert 0.01 < row["value"] < 0.1
    claimed = [
        {
            suffix: value(read(root), SHIFTED_MEAN, "dense", f"difference_to_{b}_{suffix}")
            for suffix in ("simultaneous", "detectable")
        }
        for b in ("none", "global")
    ]
    open_ones = [
        100 * rows["detectable"]["value"]
        for rows in claimed
        if rows["simultaneous"]["low"] <= 0 <= rows["simultaneous"]["high"]
    ]
    span = " to ".join(dict.fromkeys(f"{end:.1f}" for end in sorted(open_ones)))
    said = f"the test has 80 % power to detect a difference of {span} points"
    assert (said in text) == bool(open_ones)


@pytest.mark.slow
def test_an_incomplete_set_says_so_beside_every_number(tmp_path: Path) -> None:
    plan = make(tmp_path, modes=("dense",))
    path = tmp_path / paths.evaluation_file("sketch", "dense", 0)
    record = json.loads(path.read_text()) | {"shortfall": "1,500 of 50,889 images", "outside": 3}
    path.write_text(json.dumps(record))
    write_report(plan, tmp_path)
    note = "incomplete: 1,500 of 50,889 images; 3 images of classes outside its list left out"
    for metric in ("top1", "ece", "drop"):
        assert value(read(tmp_path), "sketch", "dense", metric)["note"] == note
    assert "incomplete: 1,500 of 50,889 images" in (tmp_path / paths.REPORT_PAGE).read_text(
        encoding="utf-8"
    )


@pytest.mark.slow
def test_a_set_that_was_left_out_gives_its_reason(tmp_path: Path) -> None:
    plan = make(tmp_path, modes=("dense", "none"))
    reason = "/data/sketch: no such folder"
    for mode in ("dense", "none"):
        absent = MissingEvaluation(dataset="sketch", mode=mode, seed=0, reason=reason)
        write_json(tmp_path / paths.evaluation_file("sketch", mode, 0), absent)
    text = write_report(plan, tmp_path)
    assert f"Missing: sketch, dense, none: seed 0: {reason}" in text
    rows = read(tmp_path)
    for metric in ("top1", "drop", "difference_to_none", "rms_calibration_error"):
        row = value(rows, "sketch", "dense", metric)
        assert pd.isna(row["value"])
        assert reason in row["note"]
    assert "sketch" not in value(rows, SHIFTED_MEAN, "dense", "top1")["note"].partition(";")[0]


def test_rows_can_be_in_any_order(tmp_path: Path, single: tuple[Path, str]) -> None:
    plan = make(tmp_path)
    path = tmp_path / paths.predictions_file("sketch", "dense", 0)
    pd.read_parquet(path).sample(frac=1, random_state=0).to_parquet(path)
    name = ("sketch", "dense", "difference_to_none")
    mixed, sorted_ = (
        value(build_comparison_table(compare_modes(plan, tmp_path)), *name),
        value(read(single[0]), *name),
    )
    assert mixed["low":"note"].to_dict() == pytest.approx(sorted_["low":"note"].to_dict())


def test_planted_differences_are_called_and_nulls_are_not(single: tuple[Path, str]) -> None:
    """The datasets are a family of their own, and the claims with their cost another."""
    root, text = single
    rows = read(root)
    for dataset in (*SETS, SHIFTED_MEAN):
        for mode in ("dense", "global"):
            if (dataset, mode) == ("stylized", "global"):
                continue
            metric = "difference_to_none"
            plain, whole = (value(rows, dataset, mode, metric + x) for x in ("", "_simultaneous"))
            p = value(rows, dataset, mode, f"{metric}_p_adjusted")["value"]
            planted = (mode, dataset) in PLANTED or (mode, dataset) == ("dense", SHIFTED_MEAN)
            assert (p <= 0.05, whole["low"] > 0) == (planted, planted), (mode, dataset)
            assert whole["low"] < plain["low"] < plain["high"] < whole["high"]
            # Dense with both others and its two costs; five sets of three pairs, stylized of one
            # pair, and the mean of global − none.
            family = 4 if (mode, dataset) == ("dense", SHIFTED_MEAN) else 17
            assert whole["note"] == f"family of {family}"
    few, dense = text.splitlines()[:2]
    assert few == "One seed: no statement about the modes."
    shown = 100 * value(rows, SHIFTED_MEAN, "dense", "difference_to_none_simultaneous")["value"]
    assert dense.startswith(f"Under distribution shift, dense-0 beats none-0 (+{shown:.1f} points)")
    assert "these models, not of the modes" in text


def test_three_seeds_speak_of_modes_and_state_both_families(several: tuple[Path, str]) -> None:
    root, text = several
    assert text.startswith("Under distribution shift, dense beats none (+")
    page = (root / paths.REPORT_PAGE).read_text(encoding="utf-8")
    assert "One family of 4 tests, all verdicts of this screen" in page
    assert "One family of 19 tests, all verdicts of the tables below" in page


@pytest.mark.slow
def test_effective_robustness_has_the_error_of_its_fit_and_shows_r2(tmp_path: Path) -> None:
    plan = make(tmp_path, modes=("dense", "none"))
    file = tmp_path / paths.evaluation_file("sketch", "dense", 0)
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"effective_robustness": 0.05}), encoding="utf-8")
    write_report(plan, tmp_path)
    row = value(read(tmp_path), "sketch", "dense", "effective_robustness")
    assert row["note"].endswith("r2 of the published fit 0.869")
    assert "r2 of the published fit 0.869" in (tmp_path / paths.REPORT_PAGE).read_text("utf-8")
    right = predictions("sketch", "dense", 0, 5)["correct"]
    control = predictions("imagenet", "dense", 0, 12)
    control = control[control["label"] < 5]["correct"]
    slope = compute_slope("sketch", control.mean())
    images = right.var() / len(right) + slope**2 * control.var() / len(control)
    half = 1.96 * math.sqrt(images + compute_fit_error("sketch", control.mean()) ** 2)
    assert (row["low"], row["high"]) == pytest.approx((0.05 - half, 0.05 + half), rel=0.02)


def test_images_made_of_the_same_photographs_count_once(tmp_path: Path) -> None:
    """Stylized and a corruption, made from the validation images: the mean over the two has nearly
    the error of one.
    """
    plan = make(tmp_path, modes=("dense", "none"))
    for mode in ("dense", "none"):
        path = tmp_path / paths.predictions_file("sketch", mode, 0)
        frame = pd.read_parquet(path)
        for dataset in SETS:
            copied = frame.assign(
                image_id=[f"{dataset}/n1/ILSVRC2012_val_{i:08d}.x.png" for i in range(len(frame))]
            )
            copied.to_parquet(tmp_path / paths.predictions_file(dataset, mode, 0))
            record = json.loads((tmp_path / paths.evaluation_file(dataset, mode, 0)).read_text())
            record["top1"] = float(frame["correct"].mean())
            file = tmp_path / paths.evaluation_file(dataset, mode, 0)
            file.write_text(json.dumps(record), encoding="utf-8")
    rows = build_comparison_table(compare_modes(plan, tmp_path))
    widths = [
        (row := value(rows, s, "dense", "difference_to_none"))["high"] - row["low"]
        for s in (SHIFTED_MEAN, "imagenet-a")
    ]
    assert widths[0] == pytest.approx(widths[1], rel=0.02)


def test_a_missing_cell_is_shown_with_its_reason(single: tuple[Path, str]) -> None:
    root, text = single
    row = value(read(root), "stylized", "global", "top1")
    reason = "no file reports/evaluation/global-0/stylized.json"
    assert pd.isna(row["value"])
    assert reason in row["note"]
    for file in (paths.REPORT_PAGE, paths.REPORT_TEXT):
        page = (root / file).read_text(encoding="utf-8")
        assert reason in page
        assert "missing" in page
    assert "missing" in text
    # The mean compares modes on the same sets: the incomplete one is out for all, and said to be.
    mean = value(read(root), SHIFTED_MEAN, "dense", "top1")
    assert mean["note"].endswith("not complete: stylized")
    tops = [
        value(read(root), s, "dense", "top1")["value"]
        for s in SETS
        if s not in ("imagenet", "stylized")
    ]
    assert mean["value"] == pytest.approx(np.mean(tops), abs=1e-9)


def test_the_page_is_one_harmless_file(single: tuple[Path, str]) -> None:
    text = (single[0] / paths.REPORT_PAGE).read_text(encoding="utf-8")
    page = Page(text)
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    assert page.tags.count("script") == 1
    assert re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL) == [script]
    assert (
        f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        in text
    )
    assert "&lt;script&gt;" in text
    assert all(load.startswith(("#", "data:")) for load in page.loads), page.loads
    assert not re.search(r"(url\(|@import)\s*['\"]?(https?:|//)", text)
    assert "http://" not in text
    assert "https://" not in text
    assert len(page.ids) == len(set(page.ids))
    assert {load[1:] for load in page.loads if load.startswith("#")} <= set(page.ids)
    assert page.tags.count("svg") >= 10
    assert page.unlabelled == 0
    assert len(text) < 3_000_000
    assert "not ImageNet results" in text
    assert "reports/predictions/dense-0/sketch.parquet" in text


def test_the_pull_request_text_is_harmless_and_has_whole_tables(single: tuple[Path, str]) -> None:
    text = (single[0] / paths.REPORT_TEXT).read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) > 5
    for shown in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in shown.splitlines()}) == 1
    assert len(tables[0].splitlines()) == 2 + 1 + 5  # unaltered images, claims
    assert len(tables[1].splitlines()) == 2 + len(SETS) + 1


@pytest.mark.slow
def test_same_inputs_same_bytes(several: tuple[Path, str]) -> None:
    root, text = several
    files = (paths.COMPARISON, paths.REPORT_PAGE, paths.REPORT_TEXT)
    before = [(root / f).read_bytes() for f in files]
    assert write_report(make(root, seeds=(0, 1, 2)), root, RECORDS) == text
    assert [(root / f).read_bytes() for f in files] == before


def test_three_seeds_speak_of_the_mode(several: tuple[Path, str]) -> None:
    root, text = several
    row = value(read(root), "sketch", "dense", "difference_to_none")
    gaps = [
        pd.read_parquet(root / paths.predictions_file("sketch", "dense", s))["correct"].mean()
        - pd.read_parquet(root / paths.predictions_file("sketch", "none", s))["correct"].mean()
        for s in (0, 1, 2)
    ]
    assert row["value"] == pytest.approx(np.mean(gaps), abs=1e-9)
    assert row["seeds"] == "0 1 2"
    # At least as wide as the seeds alone make it, were their spread known.
    assert row["high"] - row["low"] >= 2 * 1.96 * np.std(gaps, ddof=1) / np.sqrt(3) - 1e-9
    assert "so this speaks of the modes" in text
    assert "dense beats none (" in text
    assert "dense model" not in text


@pytest.mark.slow
def test_one_mode_has_no_tests_and_none_is_spoken_of(tmp_path: Path) -> None:
    text = write_report(make(tmp_path, modes=("dense",)), tmp_path)
    page = (tmp_path / paths.REPORT_PAGE).read_text(encoding="utf-8")
    assert text.startswith("There is only the mode dense")
    assert "\nclaim" not in text
    for said in ("No test", "simultaneous", "are relative to the mode none"):
        assert said not in page.partition("<footer>")[0]
    assert (
        value(read(tmp_path), "sketch", "dense", "difference_to_none")["note"]
        == "mode none is not in modes"
    )


@pytest.mark.slow
def test_differences_need_no_mode_none_and_name_the_first_screens_family(tmp_path: Path) -> None:
    plan = make(tmp_path, modes=("dense", "global"))
    found = compare_modes(plan, tmp_path)
    rows = {label: cells for label, _, cells in build_aggregate_table(found).rows}
    shown = (
        100
        * value(build_comparison_table(found), "sketch", "dense", "difference_to_global")["value"]
    )
    assert rows["sketch"][2].main == f"{shown:+.1f}".replace("-", "−")
    assert rows[SHIFTED_MEAN][2].sub.startswith("first screen; ")
    write_report(plan, tmp_path)
    page = (tmp_path / paths.REPORT_PAGE).read_text(encoding="utf-8")
    assert "No differences are shown" not in page


@pytest.mark.slow
def test_datasets_that_the_first_screen_tests_say_so_below_it(tmp_path: Path) -> None:
    """Without a shifted dataset there is no claim, so the datasets are the first screen's."""
    plan = make(tmp_path, modes=("dense", "none")).model_copy(
        update={"datasets": ("imagenet",), "protocols": {"imagenet": "imagenet"}}
    )
    found = compare_modes(plan, tmp_path)
    assert [label for label, _, _ in build_claim_table(found).rows] == ["imagenet", "Cost"]
    assert build_difference_table(found).rows[0][2][0].sub.startswith("first screen; ")
    assert describe_families(found) == (
        "A family of one test, the verdict of this screen",
        "",
    )
    write_report(plan, tmp_path)
    page = (tmp_path / paths.REPORT_PAGE).read_text(encoding="utf-8")
    assert "apart from the first screen" not in page


def test_predictions_that_do_not_give_the_recorded_top1_are_refused(tmp_path: Path) -> None:
    plan = make(tmp_path)
    path = tmp_path / paths.predictions_file("sketch", "none", 0)
    rows = pd.read_parquet(path)
    rows.assign(label=rows["prediction"], correct=True).to_parquet(path)
    row = value(build_comparison_table(compare_modes(plan, tmp_path)), "sketch", "none", "top1")
    assert pd.isna(row["value"])
    assert "sketch.parquet gives 1.000000; evaluate the cell again" in row["note"]


def test_answers_that_their_labels_do_not_judge_are_refused(tmp_path: Path) -> None:
    plan = make(tmp_path)
    path = tmp_path / paths.predictions_file("sketch", "none", 0)
    rows = pd.read_parquet(path)
    rows.assign(correct=rows["correct"].sample(frac=1, random_state=0).to_numpy()).to_parquet(path)
    row = value(build_comparison_table(compare_modes(plan, tmp_path)), "sketch", "none", "top1")
    assert pd.isna(row["value"])
    assert "`correct` is not what label and prediction say" in row["note"]


def test_modes_evaluated_on_different_images_are_not_paired(tmp_path: Path) -> None:
    plan = make(tmp_path)
    path = tmp_path / paths.predictions_file("sketch", "none", 0)
    rows = pd.read_parquet(path)
    rows.assign(image_id="other/" + rows["image_id"]).to_parquet(path)
    row = value(
        build_comparison_table(compare_modes(plan, tmp_path)),
        "sketch",
        "dense",
        "difference_to_none",
    )
    assert pd.isna(row["value"])
    assert row["note"] == "dense and none were evaluated on different images"


def test_a_torn_history_is_one_line_that_names_it(tmp_path: Path) -> None:
    plan = make(tmp_path)
    (tmp_path / paths.training_folder(plan.modes[0], plan.seeds[0]) / "history.csv").write_text("")
    with pytest.raises(DataError, match=r"history\.csv: No columns.*train again"):
        write_report(plan, tmp_path)
