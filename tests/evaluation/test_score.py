"""The evaluation of one model on all sets: against a slow reference, and what runs again after a
change.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from densecl import paths
from densecl.artifacts import Evaluation, read_evaluation
from densecl.errors import DataError
from densecl.evaluation import cached_predict, predict
from densecl.evaluation.metrics import compute_dataset_metrics, compute_metrics
from steps import evaluate, plan, prepare, validate
from tests.conftest import WNIDS, draw_set, write_model

ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2}
SETS = {"imagenet": WNIDS, "sketch": WNIDS[1:], "imagenet-r": WNIDS[:2], "stylized": WNIDS}
PER_CLASS = 5
MODEL = paths.model_folder("none", 0) / "model.safetensors"
IMAGES = {name: PER_CLASS * len(wnids) for name, wnids in SETS.items()}
CELLS = [
    (name, file)
    for name in SETS
    for file in (paths.predictions_file, paths.control_predictions_file, paths.evaluation_file)
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared and validated sets with a random model, `none`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("project"))
        build_project()
        return Path.cwd()


@pytest.fixture
def values(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Params of a copy of the project, which is the working directory."""
    shutil.copytree(project, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DENSECL_WORKERS", "0")
    return yaml.safe_load(Path("params.yaml").read_text())


def build_project() -> None:
    draw_set(Path("imagenet-train"), 2)
    for seed, (name, wnids) in enumerate(SETS.items(), 1):
        draw_set(Path(name), PER_CLASS, seed=seed, folders=wnids)
    given = yaml.safe_load((Path(__file__).parent.parent / "small.yaml").read_text())
    given["network"]["model_args"] = ARGS
    given |= {
        "render": {},
        "modes": ["none"],
        "datasets": {n: {"root": n, "tracked_by": n} for n in ("imagenet-train", *SETS)},
        "evaluate": {"datasets": list(SETS), "batch_size": 4},
    }
    write_model(paths.model_folder("none", 0), list(WNIDS), ARGS)
    centre_logits()
    update_plan(given, *given["datasets"])
    validate.main()


def update_plan(values: dict, *changed: str) -> None:
    """As params change, or the images of the `changed` sets."""
    Path("params.yaml").write_text(yaml.safe_dump(values))
    plan.main()
    for name in changed:
        prepare.main(name)


def run(capsys) -> tuple[int, int]:
    """Cells from the cell cache, and images run, as the stage says at its end."""
    capsys.readouterr()
    evaluate.main("none", 0)
    found = re.search(
        r"none-0: (\d+) of \d+ from the cell cache, (\d+) images run", capsys.readouterr().out
    )
    return int(found[1]), int(found[2])


def read_files() -> dict[Path, bytes]:
    files = [path for folder in (paths.EVALUATION, paths.PREDICTIONS) for path in folder.rglob("*")]
    return {path: path.read_bytes() for path in files if path.is_file()}


def change_image(name: str, wnid: str) -> None:
    """Another picture in the place of one."""
    pixels = np.random.default_rng(9).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(sorted(Path(name, wnid).iterdir())[0])


def iter_logits(name: str, wnids: tuple[str, ...]) -> Iterator[tuple[Path, torch.Tensor]]:
    """Each image and its logits [C], one image at a time, by timm alone."""
    model = timm.create_model("vit_tiny_patch16_224", num_classes=len(WNIDS), **ARGS).eval()
    model.load_state_dict(load_file(MODEL))
    config = timm.data.resolve_data_config({}, model=model) | {"input_size": (3, 32, 32)}
    if name == "stylized":
        config["crop_pct"] = 1.0
    transform = timm.data.create_transform(**config, is_training=False)
    for path in sorted(path for wnid in wnids for path in Path(name, wnid).iterdir()):
        with torch.inference_mode():
            yield path, model(transform(Image.open(path).convert("RGB"))[None])[0].double()


def centre_logits() -> None:
    """Give the random model a bias with which it predicts every class of some images."""
    logits = torch.stack([logits for _, logits in iter_logits("imagenet", WNIDS)])
    weights = load_file(MODEL)
    weights["head.bias"] -= logits.mean(0).float()
    save_file(weights, MODEL)


def predict_slowly(name: str, wnids: tuple[str, ...], scored: list[int]) -> pd.DataFrame:
    """Predictions of the images of some classes, over the scored classes."""
    rows = []
    for path, logits in iter_logits(name, wnids):
        label, among = WNIDS.index(path.parent.name), logits[scored]
        order = [scored[place] for place in among.argsort(descending=True)]
        order_unmasked = logits.argsort(descending=True).tolist()
        rows.append(
            {
                "image_id": path.as_posix(),
                "label": label,
                "prediction": order[0],
                "prediction_unmasked": order_unmasked[0],
                "confidence": float(among.softmax(0).max()),
                "confidence_unmasked": float(logits.softmax(0).max()),
                "p_true": float(among.softmax(0)[scored.index(label)]),
                "correct": order[0] == label,
                "correct5": label in order[:5],
                "correct_unmasked": order_unmasked[0] == label,
                "correct5_unmasked": label in order_unmasked[:5],
                "source": f"{path.parent.name}/{path.stem}",
            }
        )
    return pd.DataFrame(rows)


def assert_same_predictions(path: Path, expected: pd.DataFrame) -> None:
    found = pd.read_parquet(path).sort_values("image_id", ignore_index=True)
    exact = [c for c in expected if not c.startswith(("confidence", "p_true"))]
    assert list(found) == list(expected)
    pd.testing.assert_frame_equal(found[exact], expected[exact])
    for column in set(expected) - set(exact):
        np.testing.assert_allclose(found[column], expected[column], atol=1e-6, rtol=0)


@pytest.mark.slow
def test_each_set_and_control_is_as_if_it_were_run_alone(values):
    evaluate.main("none", 0)
    for name, wnids in SETS.items():
        scored = [WNIDS.index(wnid) for wnid in wnids]
        rows = predict_slowly(name, wnids, scored)
        assert_same_predictions(paths.predictions_file(name, "none", 0), rows)
        assert set(rows["prediction"]) == set(scored)
        found = read_evaluation(paths.evaluation_file(name, "none", 0))
        assert isinstance(found, Evaluation)
        control = pd.read_parquet(paths.control_predictions_file(name, "none", 0))
        if name == "imagenet":
            assert control.empty
            assert found.control is None
        else:
            expected = predict_slowly("imagenet", wnids, scored)
            assert_same_predictions(paths.control_predictions_file(name, "none", 0), expected)
            assert found.control.top1 == expected["correct"].mean()
            assert found.control.images == PER_CLASS * len(wnids)
        metrics = compute_metrics(rows) | compute_dataset_metrics(
            rows, found.protocol, WNIDS, found.control
        )
        for metric, value in metrics.items():
            assert getattr(found, metric) == (
                pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
            ), metric
        assert (found.images, found.outside, found.classes) == (IMAGES[name], 0, len(wnids))


def test_predictions_from_kept_logits_are_those_of_a_run_under_the_mask(values):
    logits = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * 4
    frame = pd.DataFrame({"image_id": [f"i{n}" for n in range(50)], "label": np.arange(50) % 2 + 1})
    whole = predict.build_predictions(frame, [logits], [1, 2])
    parts = predict.build_predictions(frame, logits.split(7), [1, 2])
    pd.testing.assert_frame_equal(whole, parts)
    assert set(whole["prediction"]) == {1, 2}
    two = logits[:, 1:].double().softmax(1)
    np.testing.assert_allclose(whole["confidence"], two.amax(1), atol=1e-7)


def test_a_second_run_runs_no_image_and_writes_the_same_bytes(values, capsys):
    assert run(capsys) == (0, sum(IMAGES.values()))
    before = read_files()
    assert len(before) == len(CELLS)
    for path in before:
        path.unlink()
    assert run(capsys) == (len(SETS), 0)
    assert read_files() == before


def test_a_new_set_alone_is_run(values, capsys):
    values["evaluate"]["datasets"] = ["imagenet", "sketch"]
    update_plan(values)
    assert run(capsys) == (0, IMAGES["imagenet"] + IMAGES["sketch"])
    values["evaluate"]["datasets"] = list(SETS)
    update_plan(values)
    assert run(capsys) == (2, IMAGES["imagenet-r"] + IMAGES["stylized"])


def test_sets_added_to_validation_alone_run_no_validation_image(values, capsys):
    values["evaluate"]["datasets"] = ["imagenet"]
    update_plan(values)
    assert run(capsys) == (0, IMAGES["imagenet"])
    values["evaluate"]["datasets"] = list(SETS)
    update_plan(values)
    assert run(capsys) == (1, sum(IMAGES.values()) - IMAGES["imagenet"])


def test_a_changed_image_runs_its_set_alone(values, capsys):
    run(capsys)
    before = read_files()
    change_image("sketch", WNIDS[1])
    update_plan(values, "sketch")
    assert run(capsys) == (len(SETS) - 1, IMAGES["sketch"])
    changed = {path for path, content in read_files().items() if before[path] != content}
    assert changed == {
        file("sketch", "none", 0) for file in (paths.predictions_file, paths.evaluation_file)
    }


def test_a_changed_validation_image_runs_validation_alone_and_moves_the_controls(values, capsys):
    run(capsys)
    before = read_files()
    change_image("imagenet", WNIDS[1])  # a class of all sets
    update_plan(values, "imagenet")
    assert run(capsys) == (len(SETS) - 1, IMAGES["imagenet"])
    changed = {path for path, content in read_files().items() if before[path] != content}
    moved = {paths.control_predictions_file(name, "none", 0) for name in SETS if name != "imagenet"}
    assert changed >= moved | {paths.predictions_file("imagenet", "none", 0)}
    assert not changed & {
        paths.predictions_file(name, "none", 0) for name in SETS if name != "imagenet"
    }


@pytest.mark.slow
def test_what_decides_predictions_is_in_the_key_and_nothing_else(values, capsys, monkeypatch):
    run(capsys)
    with monkeypatch.context() as patch:
        patch.setattr(cached_predict, "hash_sources", lambda _: "other code")
        assert run(capsys)[0] == 0
    for section in ({"batch_size": 5}, {"preprocess": dict.fromkeys(SETS, "as-is")}):
        changed = values | {"evaluate": values["evaluate"] | section}
        update_plan(changed)
        assert run(capsys)[0] == (1 if "preprocess" in section else 0)  # stylized was as-is before
    values["evaluate"]["classes"] = {"imagenet-r": [WNIDS[0]]}
    values["report"] = {"confidence": 0.9}
    update_plan(values)
    assert run(capsys) == (len(SETS) - 1, PER_CLASS)
    config = paths.model_folder("none", 0) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"note": "another model"}))
    assert run(capsys)[0] == 0


def test_a_run_that_stops_goes_on_after_the_sets_that_it_finished(values, capsys):
    broken = sorted(Path("imagenet-r", WNIDS[0]).iterdir())[2]
    content = broken.read_bytes()
    broken.write_bytes(content[:300] + bytes(len(content) - 300))  # the size of the manifest
    with pytest.raises(DataError, match="imagenet-r/"):
        evaluate.main("none", 0)
    assert "imagenet-r" not in capsys.readouterr().out
    broken.write_bytes(content)
    assert run(capsys) == (2, IMAGES["imagenet-r"] + IMAGES["stylized"])


@pytest.mark.slow
def test_a_killed_run_loses_the_set_that_it_was_running(values, capsys):
    running = subprocess.Popen(
        [sys.executable, "-m", "steps", "evaluate", "none", "0"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    with running:
        assert "imagenet none-0" in running.stdout.readline()
        assert "sketch none-0" in running.stdout.readline()
        running.kill()
    cached, images_run = run(capsys)
    assert cached >= 2
    assert images_run <= IMAGES["imagenet-r"] + IMAGES["stylized"]
    before = read_files()
    shutil.rmtree("cache/evaluation")
    assert run(capsys) == (0, sum(IMAGES.values()))
    assert read_files() == before


def test_an_optional_set_that_fails_is_tried_again(values, capsys):
    values["evaluate"]["require"] = "present"
    update_plan(values)
    broken = sorted(Path("sketch", WNIDS[1]).iterdir())[2]
    content = broken.read_bytes()
    broken.write_bytes(content[:300] + bytes(len(content) - 300))
    evaluate.main("none", 0)
    assert not isinstance(read_evaluation(paths.evaluation_file("sketch", "none", 0)), Evaluation)
    broken.write_bytes(content)
    assert run(capsys) == (len(SETS) - 1, IMAGES["sketch"])
    assert isinstance(read_evaluation(paths.evaluation_file("sketch", "none", 0)), Evaluation)


@pytest.mark.slow
def test_a_damaged_entry_is_computed_again(values, capsys):
    run(capsys)
    before = read_files()
    for path in Path("cache/evaluation").iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    assert run(capsys) == (0, sum(IMAGES.values()))
    assert read_files() == before
    assert run(capsys) == (len(SETS), 0)


def test_validation_images_have_one_rule_whichever_of_them_a_set_scores(values):
    """Images of one class of validation have another size: the others do not become as-is."""
    values["evaluate"]["protocol"] = {"imagenet": "stylized"}
    for path in Path("imagenet", WNIDS[2]).iterdir():
        Image.open(path).resize((40, 40)).save(path)
    update_plan(values, "imagenet")
    evaluate.main("none", 0)
    assert (
        read_evaluation(paths.evaluation_file("imagenet", "none", 0)).preprocessing.rule == "model"
    )
    expected = predict_slowly("imagenet", WNIDS[:2], [0, 1])  # with the model's crop
    assert_same_predictions(paths.control_predictions_file("imagenet-r", "none", 0), expected)


@pytest.mark.parametrize("url", [None, "memory://test-score/cells"])
def test_any_place_or_none_gives_the_same_files(values, capsys, url):
    evaluate.main("none", 0)
    before = read_files()
    values["evaluate"]["cell_cache"] = url
    update_plan(values)
    assert run(capsys) == (0, sum(IMAGES.values()))
    assert run(capsys) == ((0, sum(IMAGES.values())) if url is None else (len(SETS), 0))
    assert read_files() == before
