"""Row by row what docs/operations.md says of bad params and of a disk or a store that refuses."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings, strategies as st

from densecl import paths
from densecl.config.params import Params, ParamsError, load_params, parse_params
from densecl.datasets.storage.manifest import SCHEMA, read_manifest, write_manifest
from densecl.errors import DataError
from densecl.runtime import cli
from densecl.runtime.locks import hold_lock
from densecl.training.fingerprint import compute_fingerprint
from densecl.training.train import export_model, hash_images
from densecl.training.train_state import StateSaver
from steps.plan import check_network, warn_of_low_rate
from tests.conftest import draw_set
from tests.test_params import changed, default
from tests.training.test_resume import outcome
from tests.training.test_trainer import plan, run, workplace  # noqa: F401 - a fixture
from tests.training.training_project import ENVIRONMENT, STEPS, prepare
from train import build_params, build_parser, main as run_train_py


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.epocs", 3, "train.epocs: unknown key; did you mean epochs"),
        ("train.epochs", "3", "train.epochs: found '3'; input should be a valid integer"),
        (
            "train.learning_rate",
            float("inf"),
            "train.learning_rate: found inf; input should be a finite number",
        ),
        ("train.learning_rate", float("nan"), "train.learning_rate: found nan"),
        (
            "contrast.temperature",
            0.0,
            "contrast.temperature: found 0.0; input should be greater than or equal to 0.01",
        ),
        (
            "modes",
            ["sparse"],
            r"modes: found 'sparse', expected one of modes or variants \(dense, global, none\)",
        ),
        (
            "train.grad_accumulation",
            3,
            "grad_accumulation x processes: found 3 x 1, expected a divisor of batch_size",
        ),
        (
            "train.processes",
            3,
            r"grad_accumulation x processes: found 1 x 3, expected a divisor of batch_size \(128\)",
        ),
        (
            "train.checkpoint_minutes",
            0,
            "train.checkpoint_minutes: found 0; input should be greater than 0",
        ),
        ("train.warmup_epochs", 5, r"warmup_epochs must be below epochs \(5\)"),
        (
            "contrast.contrastive_weight_adaptive",
            True,
            r"contrast.ramp_epochs: found 10 .*at most train.epochs \(5\)",
        ),
        ("datasets.sketch", {"root": "x"}, "datasets.sketch.tracked_by: missing"),
        ("network.checkpoint", 7, "network.checkpoint: found 7; input should be a valid string"),
    ],
)
def test_impossible_params_are_one_line(key, value, said):
    with pytest.raises(ParamsError, match=said) as caught:
        parse_params(changed(key, value), "params.yaml")
    assert "\n" not in str(caught.value)
    assert caught.value.status == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modes: [none", "not readable as YAML"),
        ("a: &a [x]\nb: *a", r"found alias \*a in line 2, .*; write it out"),
        ("? [a]\n: 1", r"found key \('a',\), expected the name of a section"),
        ("[" * 500 + "]" * 500, "recursion depth exceeded"),
        ("a: 2020-13-45", "not readable as YAML: month must be in 1..12"),
        ("!!timestamp ", "not readable as YAML"),
        ("seeds: [" + "9" * 5000 + "]", "not readable as YAML: Exceeds the limit"),
        ("a: !!python/object/apply:os.system [true]", "found tag tag:yaml.org,2002:python"),
        ("\x00", "not readable as YAML"),
    ],
    ids=[
        "unclosed",
        "alias",
        "list as key",
        "deep",
        "month 13",
        "empty timestamp",
        "long number",
        "python tag",
        "NUL",
    ],
)  # the last six were found by fuzzing or are of the kind
def test_what_no_yaml_reader_survives_is_one_line(tmp_path, text, said):
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match=said) as caught:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


PIECES = st.sampled_from(
    [
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "\n",
        "  ",
        "? ",
        "&a ",
        "*a",
        "!!binary ",
        "!!set ",
        "!!timestamp ",
        "2020-13-45",
        "1e400",
        ".nan",
        ".inf",
        "'",
        '"',
        "|\n",
        "#",
        "%YAML 9\n",
        "---\n",
        "0x",
        "<<: ",
        "\t",
        "\x00",
        "\u2028",
        "~",
        "1:2:3",
        "9" * 5000,
    ]
)
EDITS = st.lists(
    st.tuples(st.integers(0, 3000), st.integers(0, 40), PIECES | st.text(max_size=5)), max_size=4
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=EDITS)
@example(edits=[(0, 3000, "!!timestamp ")])
def test_any_edit_of_the_params_gives_params_or_lines(tmp_path, edits):
    text = (Path(__file__).parent.parent / "params.yaml").read_text(encoding="utf-8")
    for place, cut, new in edits:
        text = text[:place] + new + text[place + cut :]
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        found = load_params(path)
    except ParamsError as error:
        found = error
    assert isinstance(found, Params) or all(
        line.startswith(str(path)) for line in str(found).splitlines()
    )


def whole_manifest(path: Path) -> bytes:
    row = {
        "image_id": "imagenet/n1/a.png",
        "path": "n1/a.png",
        "label": 0,
        "wnid": "n1",
        "width": 8,
        "height": 8,
        "bytes": 9,
        "sha256": "0" * 64,
        "dhash": "0" * 64,
        "problem": "",
        "brightness": 0.5,
        "contrast": 0.1,
    }
    frame = pd.DataFrame([row] * 3).astype(
        {"width": "int32", "height": "int32", "brightness": "float32", "contrast": "float32"}
    )
    write_manifest(frame, path)
    return path.read_bytes()


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    end=st.floats(0, 1),
)
@example(edits=[(0.9, 47)], end=1.0)
def test_any_damage_of_a_manifest_gives_its_columns_or_one_line(tmp_path, edits, end):
    data = bytearray(whole_manifest(tmp_path / "whole.parquet"))
    for place, value in edits:
        data[int(place * len(data))] = value
    path = tmp_path / "m.parquet"
    path.write_bytes(bytes(data[: int(end * len(data))]))
    try:
        found = list(read_manifest(path).columns)
    except DataError as error:
        found = str(error)
    assert found == SCHEMA.names or (found.startswith(f"{path}: ") and "\n" not in found)


def test_more_patches_than_there_are_is_a_warning_and_all_are_taken(capsys):
    values = changed("contrast.patches_per_image", 300)
    check_network(parse_params(values, "params.yaml"))
    said = capsys.readouterr().err
    assert said == (
        "warning: contrast.patches_per_image: found 300, but vit_tiny_patch16_224 has 36 patches: all of them are used\n"
    )
    check_network(parse_params(default(), "params.yaml"))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("network", "train", "is_warned"),
    [
        ({}, {"learning_rate": 1e-5}, True),
        ({}, {"learning_rate": 9.9e-5}, True),
        ({}, {"learning_rate": 1e-4}, False),
        # What counts is the peak at this batch size.
        ({}, {"learning_rate": 1e-4, "learning_rate_batch": 512, "batch_size": 128}, True),
        ({}, {"learning_rate": 5e-5, "learning_rate_batch": 64, "batch_size": 128}, False),
        ({"pretrained": True}, {"learning_rate": 1e-5}, False),
        ({"checkpoint": "w.safetensors"}, {"learning_rate": 1e-5}, False),
    ],
)
def test_random_weights_at_a_rate_for_pretrained_ones_are_a_warning(
    network, train, is_warned, capsys
):
    values = default()
    values["network"] |= network
    values["train"] |= train
    warn_of_low_rate(parse_params(values, "params.yaml"))
    said = capsys.readouterr().err
    assert said.startswith("warning: train.learning_rate: found a peak of ") is is_warned
    assert ("network.pretrained or network.checkpoint" in said) is is_warned


@pytest.mark.parametrize(("flags", "is_warned"), [([], True), (["--learning-rate", "1e-3"], False)])
def test_train_py_warns_of_the_methods_rate_from_scratch(flags, is_warned, capsys):
    """The method's command; what is checked before training starts."""
    command = ["--cl-mode", "none", "--model-name", "vit_tiny_patch16_224", "--batch-size", "256"]
    check_network(build_params(vars(build_parser().parse_args([*command, *flags]))))
    said = capsys.readouterr().err
    assert ("train.learning_rate: found a peak of 1e-05" in said) is is_warned


def test_a_second_train_py_does_not_mix_its_files_into_the_folder_of_the_first(
    tmp_path, monkeypatch, capsys
):
    """The kernel ends a lock with its holder, so that a crash leaves none."""
    draw_set(tmp_path / "train", per_class=4)
    draw_set(tmp_path / "val", per_class=2, seed=1)
    values = yaml.safe_load(Path(__file__).with_name("small.yaml").read_text(encoding="utf-8"))
    values["render"], values["evaluate"] = {}, {"datasets": ["imagenet"]}
    values["datasets"] = {
        name: {"root": root, "tracked_by": root}
        for name, root in (("imagenet-train", "train"), ("imagenet", "val"))
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    command = ["--cl-mode", "none", "--experiment-name", "twice"]
    with hold_lock(Path("runs/twice/lock")):
        assert run_train_py([*command, "--epochs", "9"]) == 75
    assert "runs/twice/lock: held by process" in capsys.readouterr().err
    assert [path.name for path in Path("runs/twice").iterdir()] == ["lock"]
    monkeypatch.setattr("densecl.training.train.train", lambda *_: None)
    assert run_train_py([*command, "--epochs", "9"]) == 0  # the lock file is no obstacle


def test_a_second_train_py_does_not_replace_the_model_of_another(tmp_path, monkeypatch, capsys):
    """One after the other, under one name; the same training may be run again."""
    draw_set(tmp_path / "train", per_class=4)
    values = yaml.safe_load(Path(__file__).with_name("small.yaml").read_text(encoding="utf-8"))
    values["render"], values["evaluate"] = {}, {"datasets": ["imagenet"]}
    values["datasets"] = {
        name: {"root": "train", "tracked_by": "train"} for name in ("imagenet-train", "imagenet")
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def train(plan, seed, images, _classes, _validate, model_folder, *_):
        model_folder.mkdir(exist_ok=True)
        fingerprint = compute_fingerprint(plan, seed, hash_images(plan.data, images))
        (model_folder / "config.json").write_text(json.dumps({"fingerprint": fingerprint}))

    monkeypatch.setattr("densecl.training.train.train", train)
    command = ["--cl-mode", "none", "--experiment-name", "twice"]
    assert run_train_py(command) == 0
    assert run_train_py([*command, "--learning-rate", "0.5"]) == 2
    assert "found a model of other params, images or code" in capsys.readouterr().err
    assert run_train_py(command) == 0


def test_an_error_starts_nothing_and_exits_with_2(tmp_path):
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"modes": ["none"]}), encoding="utf-8")
    command = [sys.executable, "-X", "importtime", *STEPS[1:], "plan"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    messages = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    assert messages[0].startswith("error: params.yaml: seeds: missing")
    assert not re.search(r"\|\s+torch$", done.stderr, re.M)  # typos are reported immediately
    assert [each.name for each in tmp_path.iterdir()] == ["params.yaml"]


# --- disks and stores that refuse ---


DISK = 4 * 2**20  # bytes: room for some checkpoints


def mounted(place: Path, *options: str) -> bool:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(place)]
    return (
        shutil.which("mount") is not None
        and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    )


@pytest.fixture
def small_disk(tmp_path):
    place = tmp_path / "small"
    if not mounted(place, f"size={DISK}"):
        pytest.skip("needs the right to mount a tmpfs (root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_stops_no_training_and_no_half_checkpoint_is_taken(
    workplace, small_disk, monkeypatch, capfd
):
    of = plan("none", epochs=2, checkpoint_minutes=1e-9)
    run(workplace, "whole", of)
    monkeypatch.setattr(paths, "CHECKPOINTS", small_disk)
    save, room = StateSaver.save, []

    def filled(self):
        if (
            self.trainer.steps_done == 3 and not room
        ):  # after two checkpoints somebody fills the disk
            room.extend(path.stat().st_size for path in small_disk.glob("*/step-*.pt"))
            (small_disk / "filler").write_bytes(b"0" * (DISK - sum(room) - min(room) // 2))
        save(self)

    monkeypatch.setattr(StateSaver, "save", filled)
    run(workplace, "again", of)
    said = capfd.readouterr().err
    assert len(room) == 2
    assert (
        "WARNING: no checkpoint at step 3: No space left on device; the last good checkpoint is "
        in said
    )
    assert "step-000000002.pt; training continues" in said
    assert outcome(workplace / "again") == outcome(workplace / "whole")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_disk_full_at_the_export_stops_with_one_line_and_the_same_command_ends_it(
    workplace, monkeypatch, capfd
):
    of = plan("none", epochs=2)
    run(workplace, "whole", of)

    def refused(*given):
        export_model(*given)
        raise OSError(28, "No space left on device", "model.safetensors")

    with monkeypatch.context() as patch:
        patch.setattr("densecl.training.train.export_model", refused)
        capfd.readouterr()
        assert cli.run_command(lambda: run(workplace, "again", of)) == 75
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith(
        "error: model.safetensors: No space left on device; no partial file is left; free space"
    )
    assert not list((workplace / "again").rglob("*"))
    run(workplace, "again", of)
    assert outcome(workplace / "again") == outcome(workplace / "whole")


def test_a_read_only_folder_stops_before_training_with_one_line(
    workplace, tmp_path, monkeypatch, capfd
):
    place = tmp_path / "readonly"
    if not mounted(place, "size=1m"):
        pytest.skip("needs the right to mount a tmpfs (root): root passes over a folder's mode")
    try:
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        monkeypatch.setattr(paths, "CHECKPOINTS", place)
        assert cli.run_command(lambda: run(workplace, "again", plan("none"))) == 75
    finally:
        subprocess.run(["umount", str(place)], check=True)
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"error: {place}/")
    assert "Read-only file system" in said[0]


@pytest.mark.slow
def test_a_locked_mlflow_database_is_reported_once_and_training_completes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, epochs=2)
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    first = subprocess.run(
        [*STEPS, "train", "none", "0"],
        env=ENVIRONMENT | store,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "MLflow" not in first.stderr
    holder = sqlite3.connect("mlflow.db", isolation_level=None)
    runs = holder.execute("select count(*) from runs").fetchone()
    holder.execute("begin exclusive")
    shutil.rmtree("models")
    done = subprocess.run(
        [*STEPS, "train", "none", "0"],
        env=ENVIRONMENT | store,
        capture_output=True,
        text=True,
        check=False,
    )
    holder.rollback()
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "MLflow" in line]
    assert len(told) == 1
    assert "logging stopped, training continues" in told[0]
    assert Path("models/none/seed-0/model.safetensors").exists()
    assert holder.execute("select count(*) from runs").fetchone() == runs
    holder.close()


@pytest.mark.slow
def test_a_resumed_training_run_continues_its_mlflow_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare(tmp_path, epochs=3)
    code = (
        "import sys; from densecl.training.trainer import Trainer; from steps.train import main\n"
        "close = Trainer._run_epoch\n"
        "def once(self):\n    close(self)\n    __import__('os').kill(__import__('os').getpid(), 9)\n"
        "if len(sys.argv) > 1: Trainer._run_epoch = once\n"
        "main('none', 0)"
    )
    store = {"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    for asked in (["kill"], ["kill"], []):
        subprocess.run(
            [sys.executable, "-c", code, *asked],
            env=ENVIRONMENT | store,
            capture_output=True,
            check=False,
        )
    with sqlite3.connect("mlflow.db") as database:
        found = database.execute("select run_uuid, status from runs").fetchall()
        steps = database.execute(
            "select step from metrics where key = 'loss' order by step"
        ).fetchall()
    database.close()
    assert [status for _, status in found] == ["FINISHED"]
    assert steps == [(1,), (2,), (3,)]
