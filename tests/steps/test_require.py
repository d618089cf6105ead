"""Sets that are missing, damaged or fail: under `require: all` they stop the run, under `present`
they leave a reason in every table.
"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from densecl import paths
from densecl.errors import DataError, DenseclError
from steps import evaluate, plan, prepare, report, validate
from tests.conftest import WNIDS, draw_set, write_model

pytestmark = pytest.mark.slow  # runs of stages, whole pages
ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SETS = ("imagenet", "imagenet-r", "sketch", "stylized", "imagenet-a")
# set -> why it has no figures
REASONS = {
    "imagenet-r": r"no/such/place: found no class folders and 0 image files",
    "sketch": r"sketch/n10000002: empty class folder",
    "stylized": r"^stylized/n10000001/image_4_0.JPEG: found 40 x 40 px, expected 32 x 32: the dataset is evaluated as-is",
    "imagenet-a": r"n10000001/image_3_0.JPEG: .*train set, which no evaluation image may share",
}


@pytest.fixture
def values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Params of a project with one good set and four bad ones: not there, an empty class, another
    size, a training image.
    """
    monkeypatch.chdir(tmp_path)
    draw_set(Path("imagenet-train"), 6)
    draw_set(Path("imagenet"), 4, seed=1)
    draw_set(Path("sketch"), 2, seed=2)
    for file in Path("sketch/n10000002").iterdir():
        file.unlink()
    draw_set(Path("stylized"), 2, size=40, seed=4)
    draw_set(Path("imagenet-a"), 2, seed=3)
    Path("imagenet-a/n10000001/image_3_0.JPEG").write_bytes(
        Path("imagenet-train/n10000001/image_0_0.JPEG").read_bytes()
    )
    given = yaml.safe_load((Path(__file__).parent.parent / "small.yaml").read_text())
    roots = {name: name for name in ("imagenet-train", *SETS)} | {"imagenet-r": "no/such/place"}
    given["datasets"] = {name: {"root": root, "tracked_by": root} for name, root in roots.items()}
    given["network"]["model_args"] = ARGS
    given["evaluate"] = {
        "datasets": list(SETS),
        "batch_size": 4,
        "require": "present",
        "preprocess": {"stylized": "as-is"},
    }
    write_model(paths.model_folder("none", 0), list(WNIDS), ARGS)
    return given | {"render": {}, "modes": ["none"]}


def write(values: dict, **evaluate_values: object) -> None:
    Path("params.yaml").write_text(
        yaml.safe_dump(values | {"evaluate": values["evaluate"] | evaluate_values})
    )


def test_present_continues_and_every_table_gives_the_reason(values, capsys):
    write(values)
    plan.main()
    assert "imagenet-r: skipped: no/such/place: no such folder" in capsys.readouterr().out
    assert Path("no/such/place").is_dir()  # DVC must find what it watches
    for name in values["datasets"]:
        prepare.main(name)
    validate.main()
    evaluate.main("none", 0)
    report.main()
    table = pd.read_csv(paths.COMPARISON).set_index(["dataset", "metric"])
    texts = [
        place.read_text(encoding="utf-8")
        for place in (paths.REPORT_PAGE, paths.REPORT_TEXT, paths.REPORT_TABLE)
    ]
    for name, why in REASONS.items():
        record = json.loads(paths.evaluation_file(name, "none", 0).read_text())
        assert record.keys() == {"dataset", "mode", "seed", "reason"}
        assert re.search(why, record["reason"])
        assert pd.read_parquet(paths.predictions_file(name, "none", 0)).empty
        for metric in ("top1", "macro_top1", "drop", "relative_accuracy"):
            assert pd.isna(table.loc[(name, metric), "value"])
            assert re.search(why.lstrip("^"), table.loc[(name, metric), "note"])
        for text in texts:
            assert re.search(f"{name}, none: seed 0: .*{why.lstrip('^')}", text.replace("\\", ""))
    assert table.loc[("imagenet", "top1"), "images"] == 12
    assert (table.loc[["imagenet"], "value"].notna()).all()


def test_a_control_that_is_missing_leaves_the_set_its_own_figures(values):
    values["datasets"]["imagenet"] = {"root": "none", "tracked_by": "none"}
    values["evaluate"]["preprocess"] = {}
    write(values, datasets=["imagenet", "stylized"])
    plan.main()
    for name in values["datasets"]:
        prepare.main(name)
    validate.main()
    evaluate.main("none", 0)
    report.main()
    table = pd.read_csv(paths.COMPARISON).set_index(["dataset", "metric"])
    assert table.loc[("stylized", "top1"), "images"] == 6
    for metric in ("control_top1", "drop", "relative_accuracy", "effective_robustness"):
        assert (
            "the control imagenet cannot be used: none: found no class folders"
            in table.loc[("stylized", metric), "note"]
        )


def test_all_stops_at_the_first_stage_that_sees_it(values):
    write(values, require="all")
    with pytest.raises(
        DenseclError, match=r"datasets.imagenet-r.root: no/such/place: no such folder"
    ):
        plan.main()
    assert not Path("no").exists()
    values["datasets"]["imagenet-r"] = {"root": "imagenet", "tracked_by": "imagenet"}
    values["evaluate"]["datasets"].remove("sketch")
    values["datasets"].pop("sketch")
    write(values, require="all")
    plan.main()
    for name in values["datasets"]:
        prepare.main(name)
    with pytest.raises(DataError, match=f"imagenet-a: {REASONS['imagenet-a']}"):
        validate.main()


def test_a_set_that_fails_in_evaluation_stops_under_all(values):
    for name in ("imagenet-r", "sketch", "imagenet-a"):
        values["evaluate"]["datasets"].remove(name)
        values["datasets"].pop(name)
    write(values, require="all")
    plan.main()
    for name in values["datasets"]:
        prepare.main(name)
    validate.main()
    with pytest.raises(DataError, match=REASONS["stylized"]):  # said in a worker, one line
        evaluate.main("none", 0)


def test_a_path_that_cannot_be_created_is_reported(values):
    values["datasets"]["imagenet-r"]["tracked_by"] = "params.yaml/inside"
    write(values)
    with pytest.raises(
        DenseclError,
        match=r"datasets.imagenet-r.tracked_by: params.yaml/inside is missing and cannot be created",
    ):
        plan.main()


def test_an_unknown_protocol_is_reported(values):
    write(values, protocol={"sketch": "skech"})
    with pytest.raises(
        DenseclError,
        match=r"evaluate.protocol.sketch: found 'skech', expected one of imagenet, imagenet-a",
    ):
        plan.main()
