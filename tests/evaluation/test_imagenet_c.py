"""ImageNet-C: its folders are scored as they are, and mCE says what it was divided by."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from densecl import paths
from densecl.analysis.corruption_error import CORRUPTIONS, add_corruption_errors
from densecl.analysis.results import Comparison, SeedResults
from densecl.artifacts import Evaluation, Preprocessing, ReportPlan, read_evaluation
from densecl.config import probe_params
from densecl.config.params import ReportParams
from densecl.datasets.imagenet import IMAGENET1K_WNIDS, read_lines
from densecl.evaluation.imagenet_c import (
    ALEXNET_ERRORS,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    compute_mce,
    compute_mce_to_alexnet,
    parse_corruption,
)
from densecl.report.tables import build_corruption_table, describe_dataset
from steps import plan
from tests.conftest import WNIDS, draw_set
from tests.evaluation.evaluated_project import ARGS, run_stages

FOLDERS = list(product(ALEXNET_ERRORS, SEVERITIES))


def test_corruption_and_severity_are_read_from_the_end_of_a_root():
    assert parse_corruption("/data/imagenet-c/weather/fog/3") == ("fog", 3)
    assert parse_corruption("blur.tar/gaussian_blur/5") == ("gaussian_blur", 5)
    assert [parse_corruption(root) for root in ("fog/6", "fog", "3", "", "mist/3", "fog/03")] == [
        None
    ] * 6


def test_alexnet_divided_by_itself_is_1():
    alexnet = {key: ALEXNET_ERRORS[key[0]] for key in FOLDERS}
    assert compute_mce_to_alexnet(alexnet) == pytest.approx(1)
    assert compute_mce(alexnet) == pytest.approx(np.mean(list(ALEXNET_ERRORS.values())))


def test_params_name_the_corruptions_of_the_benchmark():
    assert tuple(ALEXNET_ERRORS) == probe_params.MCE_CORRUPTIONS
    assert EXTRA_CORRUPTIONS == probe_params.EXTRA_CORRUPTIONS


def test_mce_is_the_mean_of_corruptions_not_of_folders():
    errors = {("fog", 1): 0.2, ("fog", 5): 0.6, ("snow", 3): 1.0, ("saturate", 3): 0.0}
    assert compute_mce(errors) == pytest.approx((0.4 + 1.0) / 2)


def build_comparison(folders, *, wnids=None, rule="as-is", side=224, seeds=(0, 1), missing=()):
    """Top-1 of seed s on severity n is 0.9 - 0.1 n + 0.02 s."""
    names = {f"{c}-{n}": (c, n) for c, n in folders}
    preprocessing = Preprocessing(
        rule=rule,
        input_size=(3, side, side),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bicubic",
        crop_pct=0.9,
        crop_mode="center",
    )
    wnids = read_lines(IMAGENET1K_WNIDS) if wnids is None else wnids
    cells = {}
    for name, (_, severity) in names.items():
        records = {
            seed: Evaluation.model_construct(
                top1=0.9 - 0.1 * severity + 0.02 * seed,
                images=50_000,
                classes=1000,
                shortfall="",
                outside=0,
                per_class=dict.fromkeys(wnids),
                preprocessing=preprocessing,
            )
            for seed in seeds
            if (name, seed) not in missing
        }
        cells[name, "none"] = SeedResults(records=records)
    settings = {name: {"root": f"/c/any/{c}/{n}"} for name, (c, n) in names.items()}
    report_plan = ReportPlan(
        modes=("none",),
        seeds=seeds,
        datasets=tuple(names),
        protocols=dict.fromkeys(names, "imagenet-c"),
        rendered=(),
        values=ReportParams(),
        params={"datasets": settings},
    )
    comparison = Comparison(report_plan, cells)
    add_corruption_errors(comparison)
    return comparison


def read_rows(comparison):
    return [
        comparison.rows[CORRUPTIONS, "none", f"mce_{word}_alexnet"] for word in ("without", "with")
    ]


def test_both_rows_of_all_folders_say_whether_alexnet_is_in_them():
    comparison = build_comparison(FOLDERS)
    without, normalised = read_rows(comparison)
    error = np.mean([0.1 + 0.1 * n - 0.02 * s for n in SEVERITIES for s in (0, 1)])
    assert without.value == pytest.approx(error)
    assert normalised.value == pytest.approx(np.mean([error / e for e in ALEXNET_ERRORS.values()]))
    found = "15 of 15 corruptions, 75 of 75 folders"
    assert without.note == f"without AlexNet normalisation; mean top-1 error over {found}"
    assert normalised.note == f"with AlexNet normalisation; {found}"
    table = build_corruption_table(comparison)
    assert [row[0] for row in table.rows] == [
        "mCE without AlexNet normalisation, %",
        "mCE with AlexNet normalisation, %",
    ]
    assert describe_dataset(comparison, "fog-3") == (
        "50,000 images, 1000 classes; as they are, not resized"
    )


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"folders": FOLDERS[:-1]}, "needs all of ImageNet-C, found 15 of 15 corruptions, 74 of"),
        ({"wnids": WNIDS}, "needs images of the 1000 classes of ImageNet-1k in every folder"),
        ({"rule": "model"}, "needs images as they are, at 224 px"),
        ({"side": 64}, "needs images as they are, at 224 px"),
    ],
)
def test_what_cannot_be_divided_by_alexnets_errors_has_its_reason(options, reason):
    without, normalised = read_rows(build_comparison(**{"folders": FOLDERS, **options}))
    assert without.value is not None
    assert normalised.value is None
    assert normalised.note.startswith(f"with AlexNet normalisation: {reason}")


def test_only_seeds_that_every_folder_has_count():
    folders = [("fog", 1), ("fog", 2)]
    without, _ = read_rows(build_comparison(folders, missing=[("fog-2", 0)]))
    assert without.seeds == "1"
    assert without.value == pytest.approx(np.mean([0.2, 0.3]) - 0.02)
    both = [("fog-1", 1), ("fog-2", 0)]
    assert [row.value for row in read_rows(build_comparison(folders, missing=both))] == [None] * 2


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Two folders of ImageNet-C, one of which does not have the model's size, evaluated by a random
    model.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        patch.setenv("DENSECL_WORKERS", "0")
        folders = {"fog-3": "c/fog/3", "snow-1": "c/snow/1", "imagenet": "val"}
        draw_set(Path("train"), 2)
        for seed, (name, root) in enumerate(folders.items(), 1):
            draw_set(Path(root), 3, size=40 if name == "snow-1" else 32, seed=seed)
        protocol = {"fog-3": "imagenet-c", "snow-1": "imagenet-c"}
        run_stages({"imagenet-train": "train", **folders}, {"protocol": protocol})
        return Path.cwd()


@pytest.mark.slow
def test_images_of_the_models_size_are_scored_as_they_are(project):
    record = read_evaluation(project / paths.evaluation_file("fog-3", "none", 0))
    assert (record.preprocessing.rule, record.resizing) == ("as-is", "")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **ARGS).eval()
    model.load_state_dict(load_file(project / paths.model_folder("none", 0) / "model.safetensors"))
    rows = pd.read_parquet(project / paths.predictions_file("fog-3", "none", 0))
    cfg = model.pretrained_cfg
    for row in rows.itertuples():
        path = project / "c/fog/3" / row.image_id.removeprefix("fog-3/")
        pixels = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255
        mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        with torch.inference_mode():
            logits = model(((torch.from_numpy(pixels) - mean) / std)[None])[0]
        assert row.confidence == pytest.approx(float(logits.softmax(0).max()), rel=1e-5)


def test_images_of_another_size_are_resized_and_every_place_says_so(project):
    record = read_evaluation(project / paths.evaluation_file("snow-1", "none", 0))
    assert record.preprocessing.rule == "model"
    assert record.resizing == (
        "resized, where the protocol prescribes as-is: 9 of 9 images are not 32 x 32 px, the "
        "model's input size"
    )
    for page in (paths.REPORT_PAGE, paths.REPORT_TEXT):
        text = (project / page).read_text(encoding="utf-8")
        assert record.resizing.replace("'", "&#39;") in text or record.resizing in text
        assert "as they are, not resized" in text
        assert "as they are, 32 x 32 px: not resized, only normalised" in text
        assert "mCE without AlexNet normalisation, %" in text
        assert "2 of 15 corruptions, 2 of 75 folders" in text
    rows = pd.read_csv(project / paths.COMPARISON).set_index(["dataset", "metric"])
    tops = [
        json.loads((project / paths.evaluation_file(name, "none", 0)).read_text())["top1"]
        for name in ("fog-3", "snow-1")
    ]
    found = rows.loc[(CORRUPTIONS, "mce_without_alexnet"), "value"]
    assert found == pytest.approx(1 - np.mean(tops))
    assert "needs all of ImageNet-C" in rows.loc[(CORRUPTIONS, "mce_with_alexnet"), "note"]


def test_plan_warns_of_a_folder_of_imagenet_c_that_is_resized(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    before = Path("params.yaml").read_text()
    values = yaml.safe_load(before)
    plan.main()
    assert "ImageNet-C" not in capsys.readouterr().out
    values["evaluate"]["protocol"].pop("fog-3")
    Path("params.yaml").write_text(yaml.safe_dump(values))
    plan.main()
    warning = (
        "\nwarning: fog-3: c/fog/3 looks like a folder of ImageNet-C, but its images are resized"
    )
    assert warning in capsys.readouterr().out
    Path("params.yaml").write_text(before)
    plan.main()
