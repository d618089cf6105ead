"""Sets whose folders are groups of classes, by the real commands on small trees: cue conflicts,
ObjectNet, ImageNet-9, and groups of the user's own.
"""

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from densecl import paths
from densecl.analysis.paired import ModelPredictions, read_model_predictions
from densecl.artifacts import Evaluation, SkippedFiles, read_evaluation, read_json
from densecl.evaluation.groups import read_published_groups
from steps import evaluate, report
from tests.conftest import draw_set
from tests.evaluation.evaluated_project import ARGS, prepare_stages

IMAGENET = (files("timm.data") / "_info/imagenet_synsets.txt").read_text(encoding="utf-8").split()
# Fish, dogs, house cats and clocks; the analog clock is of two lists.
TRAINED = tuple(sorted(IMAGENET[n] for n in (0, 152, 160, 281, 285, 409, 530)))
CUES = ("cat", "clock", "dog", "knife")  # no class of knives was trained
PER_CUE = 6
MODEL = paths.model_folder("none", 0) / "model.safetensors"
OWN = {"pets": {"groups": {"bark": TRAINED[1:3], "meow": TRAINED[3:5]}, "combine": "mean"}}


def draw_cue_conflicts(root: Path) -> None:
    """Shapes and textures of all pairs of cues, of the same too."""
    rng = np.random.default_rng(5)
    for shape in CUES:
        (root / shape).mkdir(parents=True)
        for number in range(PER_CUE):
            for texture in CUES:
                pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                path = root / shape / f"{shape}{number + 1}-{texture}{number % 3 + 1}.png"
                Image.fromarray(pixels).save(path)


def draw_bordered_set(root: Path) -> None:
    """ObjectNet's: two red pixels around each image, and folders that ImageNet has no class of."""
    draw_set(root, 3, size=40, seed=7, folders=("alarm_clock", "banana", "scissors", "rake"))
    for path in sorted(root.rglob("*.JPEG")):
        bordered = Image.new("RGB", (44, 44), (255, 0, 0))
        bordered.paste(Image.open(path), (2, 2))
        bordered.save(path.with_suffix(".png"))
        path.unlink()


def centre_logits() -> None:
    """Give the random model a bias with which it predicts every class of some images."""
    logits = torch.stack([read_logits(path) for path in sorted(Path("val").rglob("*.JPEG"))])
    weights = load_file(MODEL)
    weights["head.bias"] -= logits.mean(0).float()
    save_file(weights, MODEL)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        patch.setenv("DENSECL_WORKERS", "0")
        draw_set(Path("train"), 2, folders=TRAINED)
        draw_set(Path("val"), 4, seed=1, folders=TRAINED)
        draw_cue_conflicts(Path("cues"))
        draw_bordered_set(Path("objects"))
        draw_set(Path("nine"), 3, seed=3, folders=("00_dog", "01_bird", "08_fish"))
        draw_set(Path("pets"), 5, seed=4, folders=("bark", "meow", "moo"))
        roots = {"imagenet-train": "train", "imagenet": "val", "cue-conflict": "cues"}
        roots |= {"objectnet": "objects", "mixed_rand": "nine", "pets": "pets"}
        given = {"protocol": {"mixed_rand": "imagenet-9"}, "class_groups": OWN}
        prepare_stages(roots, given)
        centre_logits()
        evaluate.main("none", 0)
        return Path.cwd()


def read_logits(path: Path, *, as_is: bool = False, border: int = 0) -> torch.Tensor:
    """Logits [C] of one image, by timm alone."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=len(TRAINED), **ARGS).eval()
    model.load_state_dict(load_file(MODEL))
    config = timm.data.resolve_data_config({}, model=model) | {"input_size": (3, 32, 32)}
    transform = timm.data.create_transform(**config | ({"crop_pct": 1.0} if as_is else {}))
    image = Image.open(path).convert("RGB")
    image = image.crop((border, border, image.width - border, image.height - border))
    with torch.inference_mode():
        return model(transform(image)[None])[0].double()


def read_set(name: str) -> tuple[Evaluation, pd.DataFrame]:
    record = read_evaluation(paths.evaluation_file(name, "none", 0))
    assert isinstance(record, Evaluation)
    return record, pd.read_parquet(paths.predictions_file(name, "none", 0))


def decide_sixteen(path: Path) -> str:
    """The most probable of the categories, by the mean over the classes that the model has."""
    probabilities = read_logits(path, as_is=True).softmax(0)
    means = {}
    for name, wnids in read_published_groups("cue-conflict").items():
        known = [TRAINED.index(wnid) for wnid in wnids if wnid in TRAINED]
        if known:
            means[name] = sum(float(probabilities[i]) for i in known) / len(known)
    return max(means, key=means.get)


@pytest.mark.slow
def test_shape_bias_is_that_of_a_slow_recomputation(project, monkeypatch):
    monkeypatch.chdir(project)
    record, rows = read_set("cue-conflict")
    shapes = textures = correct = 0
    decisions = {}
    for path in sorted(Path("cues").rglob("*.png")):
        shape, texture = (cue.rstrip("0123456789") for cue in path.stem.split("-"))
        if shape == "knife":  # no class of it was trained
            continue
        decision = decisions[path.relative_to("cues").as_posix()] = decide_sixteen(path)
        correct += decision == shape
        if shape != texture != "knife":
            shapes, textures = shapes + (decision == shape), textures + (decision == texture)
    assert min(shapes, textures) > 0
    assert (record.shape_bias.shape, record.shape_bias.texture) == (shapes, textures)
    assert record.shape_bias.value == shapes / (shapes + textures)
    assert record.shape_bias.images == 3 * 2 * PER_CUE
    assert record.shape_bias.left_out == 3 * 2 * PER_CUE  # of one category, or half a knife
    names = {label: name for name, label in record.groups.items()}
    found = {
        row.image_id.removeprefix("cue-conflict/"): names[row.prediction]
        for row in rows.itertuples()
    }
    assert found == decisions
    assert record.top1 == correct / len(decisions)


def test_groups_that_the_model_does_not_know_are_left_out_and_counted(project, monkeypatch):
    monkeypatch.chdir(project)
    record, rows = read_set("cue-conflict")
    assert list(record.groups) == ["cat", "clock", "dog"]
    assert (record.classes, record.images, record.outside) == (3, 3 * 4 * PER_CUE, 4 * PER_CUE)
    assert sorted(record.per_class) == ["cat", "clock", "dog"]
    assert set(rows["label"]) == set(record.groups.values())
    record, _ = read_set("objectnet")
    assert (list(record.groups), record.images, record.outside) == (["alarm_clock"], 3, 3)
    record, _ = read_set("mixed_rand")
    assert list(record.groups) == ["00_dog", "08_fish"]
    assert (record.images, record.outside) == (6, 3)


def test_folders_of_no_group_are_counted(project, monkeypatch):
    monkeypatch.chdir(project)
    skipped = {
        name: read_json(SkippedFiles, paths.skipped_file(name)).skipped
        for name in ("objectnet", "pets", "cue-conflict")
    }
    assert skipped == {
        "objectnet": {"in 2 folders that no group is named by": 6},
        "pets": {"in 1 folder that no group is named by": 5},
        "cue-conflict": {},
    }


def test_objectnet_is_scored_over_all_classes_without_its_border(project, monkeypatch):
    """A prediction is right if the most probable of all classes is one of the folder's."""
    monkeypatch.chdir(project)
    record, rows = read_set("objectnet")
    clocks = {TRAINED.index(wnid) for wnid in read_published_groups("objectnet")["alarm_clock"]}
    assert len(clocks) == 2
    for row in rows.itertuples():
        path = Path("objects", row.image_id.removeprefix("objectnet/"))
        logits = read_logits(path, border=2)
        best = int(logits.argmax())
        assert row.correct == (best in clocks)
        assert row.prediction == (record.groups["alarm_clock"] if best in clocks else -1)
        assert row.confidence_unmasked == pytest.approx(float(logits.softmax(0).max()), abs=1e-5)
    assert record.top1 == record.top1_unmasked
    assert record.chance == 2 / len(TRAINED)
    assert record.preprocessing.border == 2


def test_the_control_is_the_classes_of_the_groups(project, monkeypatch):
    monkeypatch.chdir(project)
    record, _ = read_set("pets")
    control = pd.read_parquet(paths.control_predictions_file("pets", "none", 0))
    assert record.control.images == len(control) == 4 * 4
    bark, meow = record.groups["bark"], record.groups["meow"]
    for row in control.itertuples():
        wnid = row.image_id.split("/")[1]
        assert row.label == (bark if wnid in OWN["pets"]["groups"]["bark"] else meow)
        p = read_logits(Path("val", row.image_id.removeprefix("imagenet/"))).softmax(0)
        barks, meows = float(p[1] + p[2]) / 2, float(p[3] + p[4]) / 2
        assert row.prediction == (bark if barks > meows else meow)
        assert row.confidence == pytest.approx(max(barks, meows) / (barks + meows), abs=1e-5)


def test_predictions_are_read_with_the_names_of_groups(project):
    """As the gate of a retraining compares two models."""
    for name, groups in {"cue-conflict": {"cat", "clock", "dog"}, "pets": {"bark", "meow"}}.items():
        predictions = read_model_predictions(project, name, "none", 0)
        assert isinstance(predictions, ModelPredictions)
        folders = predictions.rows.index.str.split("/").str[1]
        assert set(folders) == groups
        assert (predictions.rows["wnid"] == folders).all()


@pytest.mark.parametrize("others", [(), (TRAINED[0],)])
def test_a_model_without_the_control_s_classes_is_scored_without_control(
    project, monkeypatch, tmp_path, others
):
    """Of another team: it knows a dog and the knife, and of the validation images a fish or none."""
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    config = json.loads((MODEL.parent / "config.json").read_text())
    known = (*others, IMAGENET[153], IMAGENET[499], *IMAGENET[990:996])
    config["classes"] = list(known[: len(TRAINED)])
    (MODEL.parent / "config.json").write_text(json.dumps(config))
    evaluate.main("none", 0)
    record, rows = read_set("cue-conflict")
    assert list(record.groups) == ["dog", "knife"]
    assert (record.images, len(rows), record.control) == (8 * PER_CUE, 8 * PER_CUE, None)
    assert record.left_out["control"].startswith("the control imagenet cannot be used: imagenet: ")
    assert record.shape_bias.images == 2 * PER_CUE


@pytest.mark.slow
def test_the_report_names_groups_and_has_the_shape_bias(project, monkeypatch, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    report.main()
    rows = pd.read_csv(paths.COMPARISON).set_index(["dataset", "metric"])
    record, _ = read_set("cue-conflict")
    row = rows.loc["cue-conflict", "shape_bias"]
    assert float(row["value"]) == pytest.approx(record.shape_bias.value)
    assert float(row["low"]) < record.shape_bias.value < float(row["high"])
    assert float(rows.loc["objectnet", "chance"]["value"]) == pytest.approx(2 / len(TRAINED))
    assert float(rows.loc["cue-conflict", "chance"]["value"]) == pytest.approx(1 / 3)
    text = paths.REPORT_PAGE.read_text(encoding="utf-8")
    for name in ("alarm_clock", "00_dog", "no group", "bark"):
        assert name in text
    assert "class -1" not in text


def test_a_second_run_takes_grouped_sets_from_the_cache(project, monkeypatch, capsys, tmp_path):
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    before = paths.predictions_file("cue-conflict", "none", 0).read_bytes()
    evaluate.main("none", 0)
    assert "none-0: 5 of 5 from the cell cache, 0 images run" in capsys.readouterr().out
    assert paths.predictions_file("cue-conflict", "none", 0).read_bytes() == before
