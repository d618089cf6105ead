"""The studies whose results are kept: every number of their pages, from what is kept."""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densecl import paths
from densecl.analysis.comparison import build_comparison_table, compare_modes
from densecl.artifacts import ReportPlan, read_json
from densecl.cost.result import CostReport
from pipelines.studies.ablation.factors import plan_ablation
from pipelines.studies.ablation.results import build_ablation_table, read_variant_rows
from pipelines.studies.study.protocol import StudyEnd, fix_protocol
from pipelines.studies.study.run import limit_seeds
from pipelines.studies.study.study_file import read_study
from pipelines.studies.study.write_up import write_study
from tests.pipelines.project_factory import ROOT

KEPT = sorted(page.stem.removeprefix("study-") for page in (ROOT / "docs").glob("study-*.md"))
MACHINE = re.compile(r"^\| in all \|.*$", re.MULTILINE)  # the cores of the one that wrote it
MEASURES = {  # a column of the histories, the factor and the digits of the page
    "top-1 in training, %": ("train_top1", 100, 1),
    "classification loss": ("classification_loss", 1, 2),
    "contrastive loss": ("contrastive_loss", 1, 2),
    "its value at chance": ("contrastive_chance", 1, 2),
    "true matches among the pairs, %": ("match/pairs/true", 100, 1),
    "matches beside the true one, %": ("match/pairs/near", 100, 1),
    "cosine of the two gradients": ("gradient_cosine", 1, 2),
    "effective rank of patches in an image": ("rank_patches_within", 1, 1),
    "effective rank of images (CLS)": ("rank_cls", 1, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_the_write_up_is_what_the_kept_files_give(name: str, tmp_path: Path, monkeypatch):
    kept = ROOT / paths.study_folder(name)
    shutil.copytree(kept / "comparison", tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / paths.STUDIES, tmp_path / paths.STUDIES)
    monkeypatch.chdir(tmp_path)
    file = paths.STUDIES / f"{name}.yaml"
    study = read_study(file)
    end = read_json(StudyEnd, paths.study_end(name)).end
    write_study(file, study, fix_protocol(file, study), end)
    written, page = (
        MACHINE.sub("", path.read_text(encoding="utf-8"))
        for path in (paths.STUDY_TEXT, kept / "study.md")
    )
    assert written == page


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_the_table_is_what_the_kept_files_give(name: str):
    kept = ROOT / paths.study_folder(name)
    plan = read_json(ReportPlan, kept / "comparison" / paths.plan_file("report"))
    cost = read_json(CostReport, kept / "comparison" / paths.COST)
    again = build_comparison_table(compare_modes(plan, kept / "comparison", cost))
    table = pd.read_csv(kept / "comparison.csv", dtype={"control": str, "seeds": str})
    keys = ["dataset", "control", "mode", "metric"]
    table[keys] = table[keys].fillna("")
    assert (again[keys] == table[keys]).all(axis=None)
    numbers = ["value", "low", "high"]
    assert np.allclose(
        again[numbers].astype(float), table[numbers], rtol=1e-8, atol=1e-9, equal_nan=True
    )
    assert table["value"].notna().sum() > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", KEPT)
def test_the_ablations_are_what_the_kept_files_give(name: str, tmp_path: Path, monkeypatch):
    kept = ROOT / paths.study_folder(name)
    shutil.copytree(kept / "ablations", tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    study = read_study(ROOT / paths.STUDIES / f"{name}.yaml")
    tuned = (kept / "params-tuned.yaml").read_text(encoding="utf-8")
    paths.PARAMS.write_text(limit_seeds(tuned, study.ablation_seeds), encoding="utf-8")
    ablation = plan_ablation(ROOT / str(study.ablations), paths.PARAMS)
    table = build_ablation_table(read_variant_rows(ablation.factors)[1])
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    pd.testing.assert_frame_equal(again, pd.read_csv(kept / "ablations.csv"), rtol=1e-8)


@pytest.mark.parametrize("name", KEPT)
def test_the_table_of_the_page_is_that_of_the_kept_histories(name: str):
    page = (ROOT / f"docs/study-{name}.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", page, re.M)
    found = {measure: values for measure, *values in rows if measure in MEASURES}
    assert found.keys() == MEASURES.keys()
    kept = ROOT / paths.study_folder(name)
    for measure, (column, factor, digits) in MEASURES.items():
        expected = []
        for part, mode, seeds in (
            ("comparison", "dense", 5),
            ("comparison", "global", 5),
            ("comparison", "none", 5),
            ("ablations", "dense-matches-geometric", 3),
        ):
            last = [
                pd.read_csv(kept / part / paths.training_folder(mode, seed) / "history.csv")
                .reindex(columns=[column])
                .iloc[-1, 0]
                for seed in range(seeds)
            ]
            mean = factor * float(pd.Series(last, dtype=float).mean())
            expected.append("–" if pd.isna(mean) else f"{mean:.{digits}f}")
        assert found[measure] == expected, measure
