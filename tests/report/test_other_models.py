"""Models beside the modes in the report: counted again from their files."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densecl import paths
from densecl.analysis.comparison import build_comparison_table, compare_modes
from densecl.analysis.results import PROBE_METRIC
from densecl.artifacts import (
    MissingEvaluation,
    ProbeEvaluation,
    ReportPlan,
    read_evaluation,
    read_json,
    write_json,
)
from densecl.report.render import write_report
from densecl.report.tables import build_model_table
from tests.report.probe_factory import write_probe
from tests.report.report_factory import RECORDS, SETS, make

pytestmark = pytest.mark.slow  # runs of stages, whole pages
PROBES = ("occlusion", "segmentation")
SEEDS = (0, 1, 2)
MODES = ("dense", "global", "none")


def copy_model(root: Path, mode: str, seed: int, name: str) -> None:
    """The files of a trained model as those of a model of `evaluate.models`."""
    for folder in (paths.evaluation_folder, paths.predictions_folder):
        shutil.copytree(root / folder(mode, seed), root / folder(name, None))
    for dataset in SETS:
        path = root / paths.evaluation_file(dataset, name, None)
        update: dict = {"mode": name, "seed": None}
        write_json(path, read_evaluation(path).model_copy(update=update))
    for probe in PROBES:
        path = root / paths.probe_file(probe, name, None)
        write_json(path, read_json(ProbeEvaluation, path).model_copy(update=update))


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ReportPlan, pd.DataFrame]:
    """Three seeds of three modes; `same` is dense-1; `part` cannot do sketch and segmentation, and
    knows a part of the images of imagenet-r; `absent` was not evaluated.
    """
    root = tmp_path_factory.mktemp("reported")
    plan = make(root, MODES, SEEDS)
    for mode in MODES:
        for seed in SEEDS:
            for probe in PROBES:
                write_probe(root, probe, mode, seed)
    copy_model(root, "dense", 1, "same")
    copy_model(root, "none", 0, "part")
    missing = MissingEvaluation(dataset="sketch", mode="part", seed=None, reason="no class of it")
    write_json(root / paths.evaluation_file("sketch", "part", None), missing)
    failed = ProbeEvaluation(
        probe="segmentation", mode="part", seed=None, measures={}, reason="no CLS token"
    )
    write_json(root / paths.probe_file("segmentation", "part", None), failed)
    path = root / paths.predictions_file("imagenet-r", "part", None)
    rows = pd.read_parquet(path).iloc[:-30]
    rows.to_parquet(path)
    path = root / paths.evaluation_file("imagenet-r", "part", None)
    known = {"top1": rows["correct"].mean(), "images": len(rows), "outside": 30}
    write_json(path, read_evaluation(path).model_copy(update=known))
    plan = plan.model_copy(update={"probes": PROBES, "models": ("same", "part", "absent")})
    write_report(plan, root, RECORDS)
    return root, plan, pd.read_csv(root / paths.COMPARISON)


def get(rows: pd.DataFrame, place: str, name: str, metric: str) -> pd.Series:
    found = rows[(rows["dataset"] == place) & (rows["mode"] == name) & (rows["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def test_a_model_has_the_numbers_of_its_files(reported):
    root, _, rows = reported
    for dataset in SETS:
        seen = pd.read_parquet(root / paths.predictions_file(dataset, "same", None))
        row = get(rows, dataset, "same", "top1")
        assert row["value"] == pytest.approx(seen["correct"].mean(), abs=1e-9)
        assert row["low"] < row["value"] < row["high"]
        assert pd.isna(row["seeds"])
    seen = pd.read_parquet(root / paths.probe_rows_file("occlusion", "same", None))
    row = get(rows, "(occlusion) random/area", "same", PROBE_METRIC)
    assert row["value"] == pytest.approx(seen["random/area"].mean(), abs=1e-9)


def test_a_difference_from_a_mode_is_the_mean_over_its_seeds_on_the_same_images(reported):
    root, _, rows = reported
    own = pd.read_parquet(root / paths.predictions_file("sketch", "same", None))
    own = own.set_index("image_id")["correct"].astype(float)
    for mode in MODES:
        gaps = []
        for seed in SEEDS:
            other = pd.read_parquet(root / paths.predictions_file("sketch", mode, seed))
            gaps.append(own - other.set_index("image_id")["correct"].astype(float))
        row = get(rows, "sketch", "same", f"difference_to_{mode}")
        assert row["value"] == pytest.approx(np.mean(gaps), abs=1e-9)
        assert row["seeds"] == "0 1 2" or pd.isna(row["seeds"])
        assert row["low"] < row["value"] < row["high"]
    measure = "random/area"
    own = pd.read_parquet(root / paths.probe_rows_file("occlusion", "same", None))[measure]
    others = [
        pd.read_parquet(root / paths.probe_rows_file("occlusion", "none", seed))[measure]
        for seed in SEEDS
    ]
    row = get(rows, f"(occlusion) {measure}", "same", "difference_to_none")
    assert row["value"] == pytest.approx(np.mean([own - other for other in others]), abs=1e-9)


def test_a_missing_cell_says_why_and_different_images_are_not_compared(reported):
    _, _, rows = reported
    for metric in ("top1", "difference_to_dense"):
        row = get(rows, "sketch", "part", metric)
        assert pd.isna(row["value"])
        assert row["note"] == "no class of it"
    assert get(rows, "imagenet-r", "part", "top1")["value"] > 0
    row = get(rows, "imagenet-r", "part", "difference_to_dense")
    assert pd.isna(row["value"])
    assert "part and dense were not scored on the same images; 30 images of" in row["note"]
    row = get(rows, "(segmentation) linear/chosen", "part", PROBE_METRIC)
    assert (pd.isna(row["value"]), row["note"]) == (True, "no CLS token")
    row = get(rows, "imagenet", "absent", "top1")
    assert row["note"] == "no file reports/evaluation/absent/imagenet.json"


def test_the_modes_numbers_and_families_are_those_without_other_models(reported):
    root, plan, _ = reported
    alone = build_comparison_table(compare_modes(plan.model_copy(update={"models": ()}), root))
    beside = build_comparison_table(compare_modes(plan, root))
    of_modes = beside[beside["mode"].isin(MODES)].reset_index(drop=True)
    pd.testing.assert_frame_equal(of_modes, alone)
    others = beside[~beside["mode"].isin(MODES)]
    assert set(others["mode"]) == {"same", "part", "absent"}
    tests = ("_simultaneous", "_p", "_p_adjusted", "_detectable")
    assert not others["metric"].str.endswith(tests).any()


def test_the_table_has_every_dataset_and_claim_of_every_model(reported):
    root, plan, _ = reported
    table = build_model_table(compare_modes(plan, root))
    places = {place for place, model, _ in table.rows if model == "part"}
    assert places >= {*SETS, "(occlusion) random/area", "(segmentation) linear/chosen"}
    assert all(len(cells) == 1 + len(MODES) for _, _, cells in table.rows)
    page = (root / paths.REPORT_PAGE).read_text()
    assert "Other models" in page
    assert "no class of it" in page
    assert "no class of it" in (root / paths.REPORT_TEXT).read_text()


def test_without_other_models_there_is_no_table(reported):
    root, plan, _ = reported
    assert build_model_table(compare_modes(plan.model_copy(update={"models": ()}), root)) is None
