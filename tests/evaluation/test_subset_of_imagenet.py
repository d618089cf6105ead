"""Trained on some classes of ImageNet, evaluated on sets as downloaded: labels by wnid, and all that
is left out is counted in every place.
"""

from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest

from densecl import paths
from densecl.artifacts import SkippedFiles, read_evaluation, read_json
from tests.conftest import draw_set
from tests.evaluation.evaluated_project import run_stages
from tests.page_checks import faults

IMAGENET = (files("timm.data") / "_info/imagenet_synsets.txt").read_text(encoding="utf-8").split()
TRAINED = (IMAGENET[3], IMAGENET[7], IMAGENET[12])
OTHERS = (IMAGENET[0], IMAGENET[500])
REASONS = {
    "of 10 classes that the train set does not have": 20,
    "extension .psd": 1,
    "hidden": 1,
    "in subfolders": 1,
    "not in a class folder": 1,
}
V2 = "imagenet-v2"


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        patch.setenv("DENSECL_WORKERS", "0")
        draw_set(Path("train"), 2, folders=TRAINED)
        draw_set(Path("val"), 3, seed=1, folders=(*TRAINED, *OTHERS))
        draw_set(Path("v2"), 2, seed=2, folders=tuple(f"{n:03d}" for n in range(13)))
        draw_set(Path("r"), 2, seed=3, folders=(TRAINED[1], OTHERS[1]))
        Path("train", TRAINED[0], "9.xcf").touch()
        for name in ("README.txt", "003/9.psd", "007/more/9.jpeg", "007/.9.jpeg"):
            path = Path("v2", name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"no image")
        run_stages({"imagenet-train": "train", "imagenet": "val", V2: "v2", "imagenet-r": "r"}, {})
        return Path.cwd()


def test_each_image_has_the_label_of_its_wnid(project):
    rows = pd.read_parquet(project / paths.predictions_file(V2, "none", 0))
    folders = rows["image_id"].str.split("/").str[1].astype(int)
    assert [TRAINED[label] for label in rows["label"]] == [IMAGENET[n] for n in folders]
    assert sorted(folders) == [3, 3, 7, 7, 12, 12]
    record = read_evaluation(project / paths.evaluation_file(V2, "none", 0))
    assert (record.images, record.classes, record.control.images) == (6, 3, 9)


def test_rows_and_skipped_files_are_all_files_of_the_set(project):
    counts = read_json(SkippedFiles, project / paths.skipped_file(V2))
    assert counts.skipped == REASONS
    assert counts.notes == ("folder numbers are ImageNet-1k's class indices",)
    on_disk = sum(path.is_file() for path in (project / "v2").rglob("*"))
    assert (
        len(pd.read_parquet(project / paths.manifest_file(V2))) + sum(REASONS.values()) == on_disk
    )
    for name, images in {"imagenet": 6, "imagenet-r": 2}.items():
        (found,) = read_json(SkippedFiles, project / paths.skipped_file(name)).skipped.values()
        assert found == images


@pytest.mark.slow
def test_the_validation_page_and_the_reports_list_them_by_reason(project, browser):
    page = (project / paths.VALIDATION_PAGE).read_text(encoding="utf-8")
    for reason, count in REASONS.items():
        assert f'<tr><td>{reason}</td><td class="number">{count}</td></tr>' in page
    assert faults(browser, project / paths.VALIDATION_PAGE) == []
    assert "<dt>Skipped files</dt><dd>24</dd>" in page
    assert "folder numbers are ImageNet-1k" in page
    line = (
        "24 (of 10 classes that the train set does not have: 20; extension .psd: 1; hidden: 1; in "
        "subfolders: 1; not in a class folder: 1)"
    )
    for file in (paths.REPORT_PAGE, paths.REPORT_TEXT):
        text = (project / file).read_text(encoding="utf-8")
        assert line in text
        assert "folder numbers are ImageNet-1k" in text
        assert "1 (extension .xcf: 1)" in text  # of the training set
