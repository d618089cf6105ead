"""The registry: what was registered comes back byte for byte, and champions can be walked back."""

import io
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import mlflow
import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from densecl import paths
from densecl.errors import EXIT_RETRY, DenseclError, RetryLater
from densecl.runtime.locks import hold_lock
from pipelines.registry import champions, commands, mlflow_client, registry
from pipelines.registry.finish import finish_promotion
from pipelines.registry.mlflow_client import RegistryError
from pipelines.schemas import Champion
from tests.pipelines.conftest import PRETRAINED, verdict

NAME = "densecl-vit"
TAGS = {"dvc_md5": "d" * 32 + ".dir", "git": "a" * 40, "zenml_run": "z-1", "mlflow_run": "m-1"}


def add(trained, fingerprint, promoted=True):
    made = registry.register_model(NAME, trained(fingerprint), verdict(promoted), TAGS)
    if promoted:
        registry.promote_version(NAME, made.version, "ann", f"the gate let {fingerprint} pass")
    return made.version


def registered(version):
    return json.loads(Path("models/champion/seed-0/config.json").read_text(encoding="utf-8"))[
        "fingerprint"
    ]


def test_a_version_has_its_tags_and_both_aliases(trained, client):
    folder = trained("first")
    made = registry.register_model(NAME, folder, verdict(), TAGS)
    assert (made.name, made.version, made.promoted) == (NAME, "1", True)
    assert registry.get_champion(NAME) == Champion(version=None)
    registry.promote_version(NAME, "1", "ann", "the gate")
    assert registry.get_champion(NAME) == Champion(version="1")
    found = registry.resolve_version(NAME, "champion")[1]
    assert (
        found
        == registry.resolve_version(NAME, "candidate")[1]
        == registry.resolve_version(NAME, "v1")[1]
    )
    assert TAGS.items() <= found.items()
    assert found["sha256.config.json"] == mlflow_client.hash_file(folder / "config.json")
    assert (found["mode"], found["seed"], found["fingerprint"], found["verdict"]) == (
        "dense",
        "0",
        "first",
        "promoted",
    )
    assert (found["said"], found["promoted_by"], found["promoted_why"]) == (
        verdict().said,
        "ann",
        "the gate",
    )
    assert found["history"].endswith("promoted by ann: the gate")


def test_a_candidate_takes_the_place_only_of_the_champion_that_it_was_judged_against(trained):
    add(trained, "first")
    judged = verdict(champion="1")
    made = registry.register_model(NAME, trained("second"), judged, TAGS)
    registry.promote_candidate(made, judged)
    registry.promote_candidate(made, judged)  # replayed after a kill: as it is
    assert registry.get_champion(NAME).version == "2"
    late = registry.register_model(NAME, trained("third"), judged, TAGS)
    with pytest.raises(
        RegistryError,
        match=r"champion is version 2, but version 3 was judged against 1: `python -m",
    ):
        registry.promote_candidate(late, judged)
    assert registry.get_champion(NAME).version == "2"


def test_mlflow_loads_the_champion_and_answers_as_timm_does(trained):
    folder = trained("first")
    registry.register_model(NAME, folder, verdict(), TAGS)
    registry.promote_version(NAME, "1", "ann", "the gate")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    model = timm.create_model(
        config["architecture"],
        num_classes=3,
        checkpoint_path=folder / "model.safetensors",
        **config["model_args"],
    ).eval()
    transform = create_transform(**PRETRAINED, is_training=False)
    rng, encoded, expected = np.random.default_rng(0), [], []
    for number in range(7):
        image = Image.fromarray(rng.integers(0, 256, (40 + number, 50, 3), dtype=np.uint8))
        file = io.BytesIO()
        image.save(file, "PNG")
        encoded.append(file.getvalue())
        with torch.inference_mode():
            expected.append(model(transform(image)[None]).softmax(-1)[0].numpy())
    champion = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    for size in (1, 3, 7):
        answer = champion.predict(pd.DataFrame({"image": encoded[:size]}))
        best = [int(e.argmax()) for e in expected[:size]]
        assert answer["index"].tolist() == best
        assert answer["wnid"].tolist() == [config["classes"][b] for b in best]
        np.testing.assert_allclose(
            answer["probability"], [e.max() for e in expected[:size]], atol=1e-6
        )
        assert [sorted(row) for row in answer["top5_wnid"]] == [sorted(config["classes"])] * size
    assert len({tuple(row) for row in answer["top5_wnid"]}) > 1
    with pytest.raises(ValueError, match=r"image 1: .*expected the bytes of an image file"):
        champion.predict(pd.DataFrame({"image": [encoded[0], b"no image"]}))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_mlflow_loads_no_version_whose_files_changed(trained, project, name):
    """One bit, which neither safetensors nor JSON notices."""
    registry.register_model(NAME, trained("first"), verdict(), TAGS)
    (file,) = (path for path in Path("mlruns").rglob(name) if path.is_file())
    content = bytearray(file.read_bytes())
    content[-3] ^= 1 if name == "model.safetensors" else ord(" ") ^ ord("\t")
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: found sha256 .*, expected"):
        mlflow.pyfunc.load_model(f"models:/{NAME}/1")


@pytest.mark.slow
def test_a_step_done_again_makes_no_second_version(trained):
    first = registry.register_model(NAME, trained("first"), verdict(), TAGS)
    again = registry.register_model(NAME, trained("first"), verdict(), TAGS | {"zenml_run": "z-2"})
    assert again == first
    assert registry.resolve_version(NAME, "1")[1]["zenml_run"] == "z-2"
    registry.promote_version(NAME, "1", "ann", "the gate")
    before = registry.resolve_version(NAME, "1")[1]
    assert registry.promote_version(NAME, "1", "bob", "again") == "1"
    assert registry.resolve_version(NAME, "1")[1] == before
    other = registry.register_model(
        NAME, trained("first"), verdict(promoted=False, champion="1"), TAGS
    )
    assert other.version == "2"  # judged anew
    assert list(registry.list_version_tags(NAME)) == ["1", "2"]


@pytest.mark.slow
def test_every_rollback_restores_the_previous_champion(trained, capsys):
    for fingerprint, promoted in (
        ("first", True),
        ("second", True),
        ("refused", False),
        ("third", True),
    ):
        add(trained, fingerprint, promoted)
    assert registry.rollback_champion(NAME, "bob", "worse in use") == "2"
    found = registry.resolve_version(NAME, "4")[1]
    assert (found["rolled_back_by"], found["rolled_back_why"]) == ("bob", "worse in use")
    assert (
        registry.resolve_version(NAME, "2")[1]["promoted_why"]
        == "rollback from version 4: worse in use"
    )
    assert len(registry.resolve_version(NAME, "2")[1]["history"].splitlines()) == 2
    commands.rollback("still worse", "bob")
    assert capsys.readouterr().out == (
        "densecl-vit: version 1 is champion again; rolled back: 2\n"
        "densecl-vit: version 1 is the anchor, first champion\n"
    )
    with pytest.raises(
        RegistryError,
        match=r"nothing to roll back to: no champion before version 1.*promote VERSION",
    ):
        registry.rollback_champion(NAME, "bob", "worse")
    commands.promote("3", "better than it looked", "bob")
    assert capsys.readouterr().out == (
        "densecl-vit: version 3 is champion; before: 1\n"
        "densecl-vit: version 3 is the anchor, promoted by hand\n"
    )
    assert (
        registry.rollback_champion(NAME, "bob", "no") == "1"
    )  # what was rolled back is not champion again


class Kill(BaseException):
    """As SIGKILL: nothing catches it."""


WRITES = (
    "set_registered_model_tag",
    "set_registered_model_alias",
    "set_model_version_tag",
    "delete_registered_model_tag",
)


def run_killed(number: int, command: Callable[..., None], *arguments: str) -> bool:
    """Run with a kill in place of the write to the registry of this number, the first being 0, and
    finish what it left, as the next retraining does; False if there are fewer writes.
    """
    done = itertools.count()

    def guard(original: Callable[..., None]) -> Callable[..., None]:
        def write(*values: object) -> None:
            if next(done) == number:
                raise Kill
            original(*values)

        return write

    with pytest.MonkeyPatch.context() as patch:
        for method in WRITES:
            patch.setattr(mlflow.MlflowClient, method, guard(getattr(mlflow.MlflowClient, method)))
        try:
            command(*arguments)
            return False
        except Kill:
            pass
    finish_promotion(NAME, None)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("is_rollback", [False, True])
def test_a_kill_within_a_promotion_is_completed_at_the_next_start(
    trained, client, tmp_path, is_rollback
):
    for fingerprint in ("first", "second"):
        version, card = add(trained, fingerprint), tmp_path / "card.md"
        card.write_text(f"card of {version}")
        registry.attach_file(NAME, version, card)
    ends, is_killed = [], True
    while is_killed:
        who = f"bob{len(ends)}"
        if is_rollback:
            is_killed = run_killed(len(ends), commands.rollback, "no", who)
        else:
            is_killed = run_killed(len(ends), commands.promote, "1", "no", who)
        ends.append(registry.get_champion(NAME).version)
        has_moved = ends[-1] == "1"
        action = f"promoted by {who}: {'rollback from version 2: ' if is_rollback else ''}no"
        history = registry.resolve_version(NAME, "1")[1]["history"]
        assert history.count(action) == has_moved
        former = registry.resolve_version(NAME, "2")[1]
        rolled_back = has_moved and is_rollback
        assert former["history"].count(f"rolled back by {who}: no") == rolled_back
        assert (former.get("rolled_back_by") == who) == rolled_back
        if has_moved:
            assert paths.MODEL_CARD.read_text() == "card of 1"
            assert registry.resolve_version(NAME, "anchor")[0] == "1"
        assert champions.PROMOTION_TAG not in client.get_registered_model(NAME).tags
        registry.promote_version(NAME, "2", "ann", "back")
        finish_promotion(NAME, None)
    assert ends[:3] == ["2"] * 3  # two tags come before the alias
    assert set(ends[3:]) == {"1"}
    assert len(ends) > 8


def test_a_kill_within_a_choice_of_the_present_champion_is_completed(trained, client):
    """It moves no alias: what becomes another is the anchor."""
    for fingerprint in ("first", "second"):
        add(trained, fingerprint)
        finish_promotion(NAME, None)
    assert registry.resolve_version(NAME, "anchor")[0] == "1"
    assert run_killed(1, commands.promote, "2", "checked", "ann")
    assert registry.resolve_version(NAME, "anchor")[0] == "2"
    assert client.get_registered_model(NAME).tags[champions.CHAMPIONS_TAG] == "1 2*"
    assert "promoted by ann: checked" in registry.resolve_version(NAME, "2")[1]["history"]


def test_nobody_is_promoted_while_a_retraining_is_at_work(trained):
    add(trained, "first", promoted=False)
    with hold_lock(paths.RETRAINING_LOCK), pytest.raises(RetryLater, match="held by process"):
        commands.promote("1", "by hand")
    assert registry.get_champion(NAME).version is None


def test_a_version_may_be_champion_twice(trained):
    for fingerprint in ("first", "second"):
        add(trained, fingerprint)
    registry.promote_version(NAME, "1", "bob", "by hand")
    assert [
        registry.rollback_champion(NAME, "bob", "no"),
        registry.rollback_champion(NAME, "bob", "no"),
    ] == [
        "2",
        "1",
    ]
    with pytest.raises(RegistryError, match="nothing to roll back to"):
        registry.rollback_champion(NAME, "bob", "no")


def test_a_rollback_passes_over_versions_of_the_same_files(trained):
    """As where only the evaluation had changed: the same model, judged anew."""
    add(trained, "first")
    add(trained, "second")
    again = registry.register_model(NAME, Path("models/dense/seed-0"), verdict(champion="2"), TAGS)
    registry.promote_version(NAME, again.version, "ann", "judged anew")
    assert again.version == "3"
    assert registry.rollback_champion(NAME, "bob", "worse in use") == "1"


@pytest.mark.parametrize(
    ("alias", "stack", "expected"),
    [
        (
            "2",
            "1 2 3",
            "1",
        ),  # a promotion of 3 killed before its alias, or a rollback of 3 killed after
        ("3", "1 2", "2"),  # the alias was moved by hand
        ("1", "2 1", "2"),
    ],
)
def test_the_alias_counts_where_the_history_differs(trained, client, alias, stack, expected):
    for fingerprint in ("first", "second", "third"):
        registry.register_model(NAME, trained(fingerprint), verdict(), TAGS)
    client.set_registered_model_tag(NAME, champions.CHAMPIONS_TAG, stack)
    client.set_registered_model_alias(NAME, "champion", alias)
    assert registry.rollback_champion(NAME, "bob", "no") == expected


def test_missing_versions_are_one_line(trained, client):
    with pytest.raises(
        RegistryError, match="nothing is registered yet: `python -m pipelines retraining`"
    ):
        registry.promote_version(NAME, "1", "bob", "no")
    assert registry.get_champion(NAME) == Champion(version=None)
    add(trained, "first", promoted=False)
    with pytest.raises(
        RegistryError, match="there is no champion yet; `python -m pipelines promote VERSION`"
    ):
        registry.rollback_champion(NAME, "bob", "no")
    with pytest.raises(RegistryError, match="found no version champion, expected a number"):
        registry.fetch_model(NAME, "champion", paths.CHAMPION)
    for asked in ("2", "v9", "champion", "first", "-1", ""):
        with pytest.raises(
            RegistryError, match=f"found no version {asked}, expected a number, .*; there are 1$"
        ):
            registry.promote_version(NAME, asked, "bob", "no")
    client.create_model_version(NAME, "mlruns/somebody")
    with pytest.raises(RegistryError, match="version 2 has no tag identity"):
        registry.promote_version(NAME, "2", "bob", "no")


def test_damaged_files_are_no_champion(trained, client):
    for fingerprint in ("first", "second"):
        add(trained, fingerprint)
    file = Path(client.get_model_version_download_uri(NAME, "1")) / "artifacts/model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(
        RegistryError,
        match=r"model.safetensors: found sha256 .*, expected .* of version 1 .* backup",
    ):
        registry.rollback_champion(NAME, "bob", "no")
    assert registry.get_champion(NAME).version == "2"
    file.unlink()
    with pytest.raises(RegistryError, match=r"model.safetensors: no such file, expected"):
        registry.fetch_model(NAME, "1", paths.CHAMPION)
    assert not Path("models/champion").exists()


def test_an_unreachable_store_is_one_line(project, monkeypatch):
    Path("mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(
        DenseclError,
        match=r"^MLflow at sqlite:///.*mlflow.db: .*; put it back from a backup, with mlruns/$",
    ):
        registry.get_champion(NAME)


@pytest.mark.slow  # MLflow waits 20 s for the lock
def test_a_locked_store_is_not_a_user_error(trained):
    add(trained, "first")
    holder = sqlite3.connect("mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(
        RetryLater, match="database is locked; nothing is lost: run the same command again"
    ) as found:
        registry.get_champion(NAME)
    assert found.value.status == EXIT_RETRY
    holder.close()


@pytest.mark.parametrize("bring", [Path.rename, shutil.copytree])
def test_a_moved_or_copied_project_finds_its_files_and_registers_new_ones_inside(
    trained, project, monkeypatch, bring
):
    add(trained, "first")
    moved = project.with_name("moved")
    bring(project, moved)
    before = sorted(project.rglob("*"))
    monkeypatch.chdir(moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved}/mlflow.db")
    registry.fetch_model(NAME, "champion", paths.CHAMPION)
    assert registered("1") == "first"
    config = json.loads(Path("models/dense/seed-0/config.json").read_text(encoding="utf-8"))
    Path("models/dense/seed-0/config.json").write_text(
        json.dumps(config | {"fingerprint": "second"})
    )
    made = registry.register_model(NAME, Path("models/dense/seed-0"), verdict(), TAGS)
    registry.promote_version(NAME, made.version, "ann", "the gate")
    assert sorted(project.rglob("*")) == before
    mlflow.pyfunc.load_model(f"models:/{NAME}@champion")


@pytest.mark.parametrize("name", ["a#b", "a?b", "a b", "a%20b", "ä#%23"])
def test_a_project_below_a_path_of_any_letters_registers_and_reads(
    trained, project, monkeypatch, name
):
    moved = project.with_name(name)
    project.rename(moved)
    monkeypatch.chdir(moved)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    shutil.copytree(trained("first"), moved / "models/dense/seed-0")
    made = registry.register_model(NAME, Path("models/dense/seed-0"), verdict(), TAGS)
    registry.promote_version(NAME, made.version, "ann", "the gate")
    registry.fetch_model(NAME, "champion", paths.CHAMPION)
    assert registered("1") == "first"
    mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    other = Path(unquote(str(moved)))  # where MLflow by itself would write
    assert other == moved or not other.exists()


def test_a_copied_project_reads_its_own_files(trained, project, monkeypatch):
    """Also while the original is still there."""
    add(trained, "first")
    copied = project.with_name("copied")
    shutil.copytree(project, copied)
    monkeypatch.chdir(copied)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{copied}/mlflow.db")
    for file in (project / "mlruns").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    registry.fetch_model(NAME, "champion", paths.CHAMPION)
    for file in (copied / "mlruns").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    shutil.rmtree("models/champion")
    with pytest.raises(RegistryError, match="found sha256"):
        registry.fetch_model(NAME, "champion", paths.CHAMPION)


@pytest.mark.slow
def test_a_rollback_outlives_dvc_gc(trained, project, monkeypatch):
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")

    def run(*words):
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout

    def dvc(*words):
        return run(sys.executable, "-m", "dvc", *words)

    def cached():
        return {path for path in Path(".dvc/cache").rglob("*") if path.is_file()}

    run("git", "init", "-q")
    dvc("init", "-q")
    folder = trained("first")
    first = {file: (folder / file).read_bytes() for file in mlflow_client.FILES}
    dvc("add", "-q", "models/dense/seed-0")
    add(trained, "first")
    before = cached()
    trained("second")
    dvc("add", "-q", "models/dense/seed-0")
    add(trained, "second")
    run("git", "add", "models/dense/seed-0.dvc")
    run("git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "second")
    registry.fetch_model(NAME, "champion", paths.CHAMPION)
    assert registered("2") == "second"
    dvc("gc", "--all-commits", "-f", "-q")
    gone = before - cached()
    assert gone, "dvc gc removed nothing of the first model"
    registry.rollback_champion(NAME, "bob", "worse in use")
    registry.fetch_model(NAME, "champion", paths.CHAMPION)
    assert {
        file: Path("models/champion/seed-0", file).read_bytes() for file in mlflow_client.FILES
    } == first


def test_what_is_laid_out_already_is_not_written_again(trained):
    add(trained, "first")
    registry.fetch_model(NAME, "champion", paths.CHAMPION)
    file = Path("models/champion/seed-0/model.safetensors")
    before = file.stat().st_mtime_ns
    shutil.rmtree("mlruns")  # and the registry's files are not needed
    registry.fetch_model(NAME, "champion", paths.CHAMPION)
    assert file.stat().st_mtime_ns == before
