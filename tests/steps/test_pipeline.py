"""The pipeline as `make repro` and `dvc repro` run it, on built-in images, and what `dvc status`
says after a change.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform

from densecl import paths
from densecl.artifacts import ProbeEvaluation, read_json
from densecl.cost.result import CostReport
from steps.__main__ import main

ROOT = Path(__file__).parent.parent.parent
MODES, SHIFTED = ("dense", "global", "none"), ("imagenet-r", "imagenet-v2")
WITH_PROBES = yaml.safe_load((ROOT / "tests" / "small-probes.yaml").read_text(encoding="utf-8"))
MASKED = [name for name, entry in WITH_PROBES["transfer"].items() if "masks" in entry]
PROBES = tuple(WITH_PROBES["evaluate"]["probes"])
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def call(place: Path, *command: str, ok: bool = True) -> str:
    done = subprocess.run(
        command, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def edit(place: Path, change) -> None:
    values = yaml.safe_load((place / "params.yaml").read_text())
    change(values)
    (place / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A clone in which the small comparison has run: one for the fast and the slow tests, where
    DENSECL_FINISHED names a folder that both may use.
    """
    place = Path(os.environ.get("DENSECL_FINISHED", tmp_path_factory.mktemp("clone") / "densecl"))
    if (place / "reports/report.html").exists():
        return place
    for part in ("densecl", "pipelines", "steps", ".dvc", "dvc.yaml", ".dvcignore", "train.py"):
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(
                source, place / part, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp")
            )
        else:
            shutil.copy(source, place / part)
    call(place, "git", "init", "-q")
    shutil.copy(ROOT / "tests" / "small.yaml", place / "params.yaml")
    edit(place, lambda v: v["evaluate"].update(datasets=["imagenet", *SHIFTED]))
    edit(
        place,
        lambda v: [v[s].pop(n) for s in ("render", "datasets") for n in ("imagenet-a", "stylized")],
    )
    edit(place, lambda v: v["train"].update(epochs=1, warmup_epochs=0.5))
    edit(place, lambda v: v["render"].update(WITH_PROBES["render"]))
    edit(place, lambda v: v.update(transfer=WITH_PROBES["transfer"]))
    edit(place, lambda v: v["evaluate"].update(WITH_PROBES["evaluate"]))
    call(place, sys.executable, "-m", "pipelines", "run")
    return place


@pytest.fixture
def workplace(finished, tmp_path) -> Path:
    """A copy, up to date: faster than putting one back by `dvc repro` after each change."""
    return shutil.copytree(finished, tmp_path / "densecl", symlinks=True)


def changed(place: Path) -> set[str]:
    """Stages that would run, after the plan has been made anew."""
    call(place, "dvc", "repro", "plan")
    return set(json.loads(call(place, "dvc", "status", "--json"))) - {"plan"}


def test_every_contracted_file_is_there_and_a_second_run_does_nothing(finished):
    for mode in MODES:
        assert {p.name for p in (finished / "models" / mode / "seed-0").iterdir()} == {
            "model.safetensors",
            "heads.safetensors",
            "config.json",
        }
        assert {p.name for p in (finished / "reports/training" / f"{mode}-0").iterdir()} == {
            "history.csv",
            "training.json",
            "matches.safetensors",
        }
        for name in ("imagenet", *SHIFTED):
            record = json.loads(
                (finished / "reports/evaluation" / f"{mode}-0" / f"{name}.json").read_text()
            )
            rows = pd.read_parquet(
                finished / "reports/predictions" / f"{mode}-0" / f"{name}.parquet"
            )
            assert (
                record["top1"]
                == rows["correct"].mean()
                == (rows["prediction"] == rows["label"]).mean()
            )
            assert (record["control"] is None) == (name == "imagenet")
        for probe in PROBES:
            found = read_json(ProbeEvaluation, finished / paths.probe_file(probe, mode, 0))
            rows = pd.read_parquet(finished / paths.probe_rows_file(probe, mode, 0))
            assert found.measures
            assert set(found.measures) == set(rows.columns) - {"image_id", "source"}
            for name, probed in found.measures.items():
                assert probed.value == pytest.approx(rows[name].mean(), abs=1e-12)
    cost = read_json(CostReport, finished / paths.COST)
    assert set(cost.modes) == set(MODES)
    assert all(step.memory_bytes for step in cost.modes.values())
    for name in ("comparison.csv", "report.html", "report.md", "validation.html"):
        assert (finished / "reports" / name).stat().st_size > 500
    assert "didn't change" in call(finished, "dvc", "repro")
    assert call(finished, "dvc", "status").strip() == "Data and pipelines are up to date."


def test_the_control_is_validation_under_the_same_mask(finished):
    record = json.loads((finished / "reports/evaluation/none-0/imagenet-r.json").read_text())
    control = pd.read_parquet(finished / record["control"]["predictions"])
    own = pd.read_parquet(finished / "reports/predictions/none-0/imagenet-r.parquet")
    assert record["classes"] == own["label"].nunique() == 7
    assert set(control["label"]) == set(own["label"])
    assert set(control["prediction"]) | set(own["prediction"]) <= set(own["label"])
    assert control["image_id"].str.startswith("imagenet/").all()
    assert len(control) == record["control"]["images"] == 7 * 4


@pytest.mark.parametrize("name", ["imagenet", *SHIFTED])
def test_timm_alone_reproduces_every_prediction(finished, name):
    config = json.loads((finished / "models/none/seed-0/config.json").read_text())
    model = timm.create_model(
        config["architecture"],
        num_classes=config["num_classes"],
        checkpoint_path=str(finished / "models/none/seed-0/model.safetensors"),
        **config["model_args"],
    ).eval()
    transform = create_transform(**config["pretrained_cfg"])
    root = {
        "imagenet": "imagenet/val",
        "imagenet-r": "imagenet-r",
        "imagenet-v2": "imagenetv2-matched-frequency-format-val",
    }[name]
    right, total = 0, 0
    folders = [p for p in (finished / "data/rendered" / root).iterdir() if p.is_dir()]
    labels = {
        f: int(f.name) if name == "imagenet-v2" else config["classes"].index(f.name)
        for f in folders
    }
    scored = sorted(labels.values())
    with torch.no_grad():
        for folder, label in labels.items():
            batch = torch.stack(
                [transform(Image.open(p).convert("RGB")) for p in sorted(folder.iterdir())]
            )
            right += int((model(batch)[:, scored].argmax(1) == scored.index(label)).sum())
            total += len(batch)
    record = json.loads((finished / "reports/evaluation/none-0" / f"{name}.json").read_text())
    assert (record["top1"], record["images"]) == (right / total, total)


@pytest.mark.slow
def test_one_mode_s_parameter_touches_that_mode_only(workplace):
    edit(workplace, lambda v: v["contrast"].update(sampling_strategy="diverse"))
    # What follows a training is known to change only once it has run; report.json holds all params.
    assert changed(workplace) == {"train@dense-0", "cost", "report"}
    edit(workplace, lambda v: v["contrast"].update(sampling_strategy="random"))
    edit(workplace, lambda v: v["contrast"].update({"global": {"temperature": 0.3}}))
    assert changed(workplace) == {"train@global-0", "report"}  # it shapes no step: no new cost


@pytest.mark.slow
def test_a_new_evaluation_set_is_evaluated_and_nothing_else(workplace):
    def add(values):
        values["render"]["sketch2"] = {
            **values["render"]["sketch"],
            "folder": "sketch2",
            "seed": 77,
        }
        values["datasets"]["sketch2"] = dict.fromkeys(
            ("root", "tracked_by"), "data/rendered/sketch2"
        )
        values["evaluate"]["datasets"].append("sketch2")

    edit(workplace, add)
    call(workplace, "dvc", "repro", "validate")
    # Of the drawn images DVC tracks one folder; listed again, the old ones give the same bytes.
    call(workplace, "dvc", "repro", *(f"prepare-transfer@{name}" for name in MASKED))
    assert changed(workplace) == {f"evaluate@{mode}-0" for mode in MODES} | {"report"}
    said = call(workplace, "dvc", "repro", "evaluate@none-0")
    assert (
        f"none-0: {3 + len(PROBES)} of {4 + len(PROBES)} from the cell cache, 48 images run" in said
    )


@pytest.mark.slow
def test_a_replaced_image_runs_its_set_alone(workplace):
    def own(values):
        values["render"].pop("imagenet-r")
        values["datasets"]["imagenet-r"] = dict.fromkeys(("root", "tracked_by"), "own/r")

    all_cells = 3 + len(PROBES)
    shutil.copytree(workplace / "data/rendered/imagenet-r", workplace / "own/r")
    edit(workplace, own)
    said = call(workplace, "dvc", "repro", "evaluate@none-0")
    assert (
        f"none-0: {all_cells} of {all_cells} from the cell cache, 0 images run" in said
    )  # the same images elsewhere
    one, other = sorted((workplace / "own/r").glob("*/*.*"))[:2]
    Image.open(one).rotate(180).save(one)
    said = call(workplace, "dvc", "repro", "evaluate@none-0")
    assert f"none-0: {all_cells - 1} of {all_cells} from the cell cache, 28 images run" in said
    assert "python -m steps train" not in said
    other.unlink()
    said = call(workplace, "dvc", "repro", "evaluate@none-0")
    assert f"none-0: {all_cells - 1} of {all_cells} from the cell cache, 27 images run" in said


@pytest.mark.slow
def test_a_file_that_is_no_image_is_counted_and_trains_nothing(workplace):
    def own(values):
        values["render"].pop("imagenet-train")
        values["datasets"]["imagenet-train"] = dict.fromkeys(("root", "tracked_by"), "own/train")

    shutil.copytree(workplace / "data/rendered/imagenet/train", workplace / "own/train")
    (workplace / "own/train/notes.txt").touch()
    edit(workplace, own)
    said = call(workplace, "dvc", "repro", "evaluate@none-0")
    assert "in own/train; skipped 1 (not in a class folder: 1)" in said
    assert "python -m steps train" not in said


@pytest.mark.slow
def test_a_set_that_is_not_there_stops_nothing_where_params_say_so_and_trains_nothing(workplace):
    """DVC fails on a dependency that is not there; `plan` makes an empty folder for it to watch."""

    def lose(values):
        values["render"].pop("sketch")
        values["datasets"]["sketch"] = dict.fromkeys(("root", "tracked_by"), "elsewhere/sketch")
        values["evaluate"]["datasets"].append("sketch")
        values["evaluate"]["require"] = "present"

    edit(workplace, lose)
    said = call(workplace, "dvc", "repro", "evaluate@none-0")
    assert "sketch: skipped: elsewhere/sketch: found no class folders and 0 image files" in said
    assert "python -m steps train" not in said
    record = json.loads((workplace / "reports/evaluation/none-0/sketch.json").read_text())
    assert record["reason"].startswith("elsewhere/sketch: found no class folders")
    shutil.copytree(
        workplace / "data/rendered/imagenet/val", workplace / "elsewhere/sketch", dirs_exist_ok=True
    )
    assert "prepare@sketch" in changed(workplace)


@pytest.mark.slow
def test_removing_a_mode_runs_cost_and_report_only_and_nothing_of_it_is_lost(workplace):
    edit(workplace, lambda v: v.update(modes=["dense", "none"]))
    assert changed(workplace) == {"cost", "report"}
    call(workplace, "dvc", "repro")
    edit(workplace, lambda v: v.update(modes=list(MODES)))
    said = call(workplace, "dvc", "repro")
    assert "Stage 'evaluate@global-0' is cached" in said
    assert "python -m steps train" not in said
    assert "python -m steps evaluate" not in said


@pytest.mark.slow
def test_a_variant_runs_as_a_mode_of_its_own_and_reruns_no_other(workplace):
    def add(values):
        contrast = {"correspondence_features": "geometric", "correspondence_filter": "none"}
        values["variants"] = {
            "dense-geometric": {"base": "dense", "contrast": contrast},
            "none-16": {"base": "none", "train": {"batch_size": 16}},
        }
        values["modes"] += ["dense-geometric", "none-16"]

    edit(workplace, add)
    runs = [f"{mode}-0" for mode in ("dense-geometric", "none-16")]
    stages = {f"{stage}@{run}" for stage in ("train", "evaluate") for run in runs}
    assert changed(workplace) == stages | {"cost", "report"}
    said = call(workplace, "dvc", "repro")
    assert said.count("> python -m steps train") == said.count("> python -m steps evaluate") == 2
    folder = workplace / "models/dense-geometric/seed-0"
    config = json.loads((folder / "config.json").read_text())
    assert (config["mode"], config["base"]) == ("dense-geometric", "dense")
    histories = {
        mode: pd.read_csv(workplace / "reports/training" / f"{mode}-0" / "history.csv").iloc[-1]
        for mode in ("dense", "dense-geometric")
    }
    true_share = {mode: last["match/pairs/true"] for mode, last in histories.items()}
    assert true_share["dense"] < 0.99
    assert true_share["dense-geometric"] == pytest.approx(1)
    cost = read_json(CostReport, workplace / paths.COST)
    assert set(cost.modes) == {*MODES, "dense-geometric"}
    text = (workplace / paths.REPORT_TEXT).read_text(encoding="utf-8")
    table = text.partition("### Variants against their base")[2].partition("###")[0]
    table = table.replace("\\_", "_")
    assert "dense-geometric (dense with contrast.correspondence_features geometric and" in table
    assert "none-16 (none with train.batch_size 16)" in table
    said = call(workplace, sys.executable, "-m", "steps", "compare", "workspace", "workspace")
    assert "dense-geometric" in said


@pytest.mark.slow
def test_editing_the_report_runs_the_report_only(workplace):
    edit(workplace, lambda v: v["report"].update(confidence=0.9))
    assert changed(workplace) == {"report"}


@pytest.mark.slow
def test_how_stages_are_carried_out_reruns_no_training_and_no_evaluation(workplace):
    edit(workplace, lambda v: v["train"].update(checkpoint_minutes=3, processes=2))
    edit(workplace, lambda v: v["evaluate"].update(cell_cache="s3://shared/cells"))
    assert changed(workplace) == {"cost"}  # of one process's share of a batch
    assert json.loads((workplace / "data/plan/execution.json").read_text()) == {
        "cell_cache": "s3://shared/cells",
        "checkpoint_activations": False,
        "checkpoint_minutes": 3.0,
        "parallel": "ddp",
        "processes": 2,
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v["contrast"].update(lambda_weight=1.5), "contrast.lambda_weight: found 1.5"),
        (lambda v: v["contrast"].update(lambda_wieght=0.5), "did you mean lambda_weight?"),
        (
            lambda v: v.update(modes=["dens"]),
            "modes: found 'dens', expected one of modes or variants (dense, global, none)",
        ),
        (
            lambda v: v["network"].update(model_name="vit_tinny"),
            "network.model_name: found 'vit_tinny', which timm",
        ),
        (
            lambda v: v["network"].update(model_name="resnet18", model_args={}),
            "is a ResNet; expected a timm VisionTransformer, Eva or Beit",
        ),
        (
            lambda v: v["network"].update(model_name="eva02_tiny_patch14_224", model_args={}),
            "global_pool 'avg'; expected one classifier on the CLS token",
        ),
        (
            lambda v: v["network"].update(
                model_name="deit_tiny_distilled_patch16_224", model_args={}
            ),
            "a second, distilled classifier",
        ),
        (
            lambda v: v["network"]["model_args"].update(patch_drop_rate=0.5),
            "network.model_args: found patch_drop_rate 0.5",
        ),
        (
            lambda v: v["network"]["model_args"].update(in_chans=1),
            "network.model_args: found in_chans 1, expected 3",
        ),
        (
            lambda v: v["network"]["model_args"].update(patch_size=7),
            "network.model_args: patches of 7 x 7 px do not fill 64 x 64 px",
        ),
        (
            lambda v: v["render"].pop("sketch") and v["datasets"]["sketch"].update(root="no/such"),
            "datasets.sketch.root: no/such",
        ),
        (
            lambda v: v["render"].pop("sketch") and v["datasets"]["sketch"].update(root="hollow"),
            "hollow/n90000001",
        ),
    ],
)
def test_an_error_is_one_line_and_nothing_is_lost(finished, monkeypatch, capsys, change, said):
    (finished / "hollow" / "n90000000").mkdir(parents=True, exist_ok=True)
    (finished / "hollow" / "n90000001").mkdir(exist_ok=True)
    shutil.copy(
        next((finished / "data/rendered/sketch").glob("*/*.JPEG")), finished / "hollow/n90000000"
    )
    files = {
        p: p.read_bytes()
        for folder in ("data/plan", "models", "reports")
        for p in (finished / folder).rglob("*.*")
        if p.is_file()
    }
    monkeypatch.chdir(finished)
    before = Path("params.yaml").read_text()
    try:
        edit(finished, change)
        assert main(["plan"]) == 2
        repro = call(finished, "dvc", "repro", ok=False)
    finally:
        Path("params.yaml").write_text(before)
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert said in told
    assert said in next(line for line in repro.splitlines() if line.lower().startswith("error"))
    assert all(path.read_bytes() == content for path, content in files.items())


@pytest.mark.slow
def test_a_changed_weights_file_of_another_model_reruns_its_own_stage_alone(workplace):
    for name in ("a", "b"):
        shutil.copytree(workplace / "models/none/seed-0", workplace / name)
    models = {"first": "./a", "second": {"weights": "./b/model.safetensors"}}
    edit(workplace, lambda v: v["evaluate"].update(models=models))
    run = (sys.executable, "-m", "pipelines", "run")
    call(workplace, *run)
    trained = workplace / "reports/predictions/none-0"
    for name in models:
        for path in trained.rglob("*.parquet"):
            other = workplace / "reports/predictions" / name / path.relative_to(trained)
            pd.testing.assert_frame_equal(pd.read_parquet(other), pd.read_parquet(path))
    assert "up to date" in call(workplace, "dvc", "status")
    weights = load_file(workplace / "a/model.safetensors")
    save_file(weights | {"head.bias": weights["head.bias"] + 1}, workplace / "a/model.safetensors")
    assert changed(workplace) == {"evaluate-model@first"}
    said = call(workplace, *run)
    assert "evaluate-model@first" in said
    assert "up to date" in call(workplace, "dvc", "status")
    save_file({"head.bias": weights["head.bias"]}, workplace / "a/model.safetensors")
    refused = call(workplace, "dvc", "repro", "plan", ok=False)
    assert (
        "error: params.yaml: evaluate.models.first: a/model.safetensors has no classif" in refused
    )
    edit(workplace, lambda v: v["evaluate"].pop("models"))
    call(workplace, *run)
    assert not (workplace / "reports/predictions/first").exists()
    assert "up to date" in call(workplace, "dvc", "status")


@pytest.mark.slow
def test_export_writes_a_program_that_gives_the_model_s_logits_for_any_batch(finished):
    call(finished, sys.executable, "-m", "steps", "export", "dense", "0")
    place = finished / "exports/dense-0"
    config = json.loads((place / "config.json").read_text())
    model = timm.create_model(
        config["architecture"],
        num_classes=config["num_classes"],
        checkpoint_path=str(place / "model.safetensors"),
        **config["model_args"],
    ).eval()
    program = torch.export.load(place / "classifier.pt2").module()
    for batch in (1, 3):
        images = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            assert torch.allclose(program(images), model(images), atol=1e-5)
    assert load_file(place / "heads.safetensors")["layers.2.weight"].shape == (128, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        (
            "--cl-mode",
            "global",
            "--lambda-weight",
            "1",
            "--key-encoder",
            "momentum",
            "--symmetric",
            "--negatives",
            "other_class",
        ),
        ("--cl-mode", "none"),
        (
            "--correspondence-features",
            "geometric",
            "--sampling-strategy",
            "diverse",
            "--memory-unit",
            "image",
        ),
        (
            "--correspondence-filter",
            "mutual",
            "--patches-per-image",
            "10",
            "--queue-size",
            "300",
            "--temperature",
            "0.1",
        ),
    ],
)
def test_every_option_trains_once(finished, flags):
    name = "option" + "".join(flags)  # one name is one training
    args = json.dumps(
        {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    )
    call(
        finished,
        sys.executable,
        "train.py",
        "--model-args",
        args,
        "--batch-size",
        "16",
        "--epochs",
        "1",
        "--warmup-epochs",
        "0",
        "--steps-per-epoch",
        "3",
        "--experiment-name",
        name,
        *flags,
    )
    history = pd.read_csv(finished / "runs" / name / "training/history.csv")
    assert history["loss"].notna().all()
    assert 0 <= history["match/last/within0"].item() <= history["match/last/within1"].item() <= 1


@pytest.mark.slow
def test_train_py_trains_outside_the_pipeline(finished):
    args = json.dumps(
        {"img_size": 64, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    )
    call(
        finished,
        sys.executable,
        "train.py",
        "--cl-mode",
        "dense",
        "--model-args",
        args,
        "--batch-size",
        "16",
        "--epochs",
        "2",
        "--warmup-epochs",
        "1",
        "--steps-per-epoch",
        "2",
        "--sampling-strategy",
        "hardest",
        "--learnable-temp",
        "--contrastive-weight-adaptive",
        "--correspondence-features",
        "backbone",
        "--experiment-name",
        "tried",
    )
    history = pd.read_csv(finished / "runs/tried/training/history.csv")
    assert len(history) == 2
    assert (history["top1/imagenet"] <= history["top5/imagenet"]).all()
    assert (finished / "runs/tried/model/model.safetensors").exists()
    said = call(finished, sys.executable, "train.py", "--lambda-weight", "1.5", ok=False)
    assert said.startswith("error: train.py: contrast.lambda_weight: found 1.5")
    assert call(finished, "dvc", "status").strip() == "Data and pipelines are up to date."
