"""The story of a project under retraining, from its first champion on; its tests follow each other
in one folder.
"""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.pipelines.project_factory import ENVIRONMENT, call, draw, pipelines, project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return project(tmp_path_factory.mktemp("retraining"))


TIMED = (
    "reports/cost.json",
    "reports/report.",
    "reports/table.txt",
    "reports/metrics",
    "reports/plots",
)  # hold how long something took


def ends(place: Path) -> pd.DataFrame:
    return pd.read_csv(place / "reports/retraining.csv", dtype=str)


def locked(place: Path) -> dict:
    """dvc.lock without what varies with time: cost, and what is made from it."""
    stages = yaml.safe_load((place / "dvc.lock").read_text())["stages"]
    for stage in stages.values():
        for entries in (stage.get("deps", []), stage.get("outs", [])):
            entries[:] = [e for e in entries if not e["path"].startswith(TIMED)]
    return stages


def weights(place: Path) -> str:
    return hashlib.sha256((place / "models/none/seed-0/model.safetensors").read_bytes()).hexdigest()


def test_the_comparison_leaves_a_lock_file_that_dvc_repro_has_nothing_to_add_to(place):
    """Equal to that of `dvc repro`: tests/cluster/test_cluster.py, tests/pipelines/test_engine.py."""
    said = pipelines(place, "comparison")
    assert "[9/9] report: ran" in said
    assert {"train@none-0", "evaluate@none-0", "report"} < set(locked(place))
    lock = (place / "dvc.lock").read_bytes()
    assert "didn't change" in call(place, "dvc", "repro")
    assert (place / "dvc.lock").read_bytes() == lock


TOLD = """
import json
from pipelines.runtime import zenml_env
steps = zenml_env.get_client().list_pipeline_runs(pipeline="comparison", hydrate=True).items[0].steps
outputs = {n: {o: a[0].load() for o, a in steps[n].outputs.items()} for n in ("train_none_0", "evaluate_none_0", "report")}
print("found:" + json.dumps([
    steps["train_none_0"].run_metadata,
    outputs["train_none_0"]["reference"].model_dump(), outputs["evaluate_none_0"]["metrics"],
    len(outputs["report"]["comparison"]), outputs["report"]["page"][:15],
]))
"""


def test_zenml_has_pointers_metrics_table_and_page(place):
    told, reference, metrics, rows, page = json.loads(
        call(place, sys.executable, "-c", TOLD).partition("found:")[2]
    )
    assert told["did"] == "ran"
    assert told["seconds"] > 0
    assert told["git"] == call(place, "git", "rev-parse", "HEAD").strip()
    assert told["md5"] == reference["outs"]
    assert len(told["mlflow_run"]) == 32
    lock = locked(place)["train@none-0"]
    assert {e["path"]: e["md5"] for e in lock["deps"]} == reference["deps"]
    assert (
        metrics["imagenet"]["top1"]
        == json.loads((place / "reports/evaluation/none-0/imagenet.json").read_text())["top1"]
    )
    assert rows == len(pd.read_csv(place / "reports/comparison.csv"))
    assert page.lower() == "<!doctype html>"


KILLED = """
import os
from pipelines.registry import model_card
model_card.attach_card = lambda *_: os._exit(9)
from pipelines.__main__ import main
main(["retraining"])
"""


def test_the_first_candidate_that_beats_chance_is_champion(place):
    """Also after a kill between its version and its card: one version, and judged against
    nothing.
    """
    call(place, sys.executable, "-c", KILLED, status=9)
    said = pipelines(place, "retraining")
    assert "marked as failed" in said
    assert "promoted as the first champion" in said
    assert "train@none-0: unchanged" in said  # the comparison trained it
    last = ends(place).iloc[-1]
    assert (last.outcome, last.version, last.champion) == ("promoted", "1", "1")
    assert (place / "models/card.md").read_text().count("none")
    assert "imagenet" in (place / "reports/retraining.html").read_text()


def test_nothing_changed_is_recorded_and_trains_nothing(place):
    started = time.monotonic()
    said = pipelines(place, "retraining")
    assert (
        time.monotonic() - started < 120
    )  # a hang, not a measurement: docs/retraining.md has the time
    assert "Nothing changed" in said
    assert "train@" not in said
    assert ends(place).iloc[-1].outcome == "unchanged"


def test_new_images_a_kill_in_the_midst_of_training_and_replay(place, tmp_path):
    """Ends in the same model as a training that nobody disturbed."""
    draw(place / "images/train", 10, 7)
    dry = pipelines(place, "retraining", "--dry-run")
    assert "30 new, 0 removed, 0 changed" in dry
    change(place, epochs=30)  # long enough to be killed
    with (tmp_path / "said").open("w") as said:
        first = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "retraining"],
            cwd=place,
            env=ENVIRONMENT,
            stdout=said,
            stderr=said,
        )
        until(lambda: "] plan: " in (tmp_path / "said").read_text())
        # Before the training starts, which could otherwise end before the kill.
        refused = pipelines(place, "retraining", status=75)
        assert f"process {first.pid}" in refused
        until(lambda: list(place.glob("checkpoints/*/step-*.pt")))
        first.send_signal(signal.SIGKILL)
        first.wait()
    until(lambda: not list(place.glob("checkpoints/*/*.partial")))
    change(place, epochs=31)
    refused = pipelines(place, "replay", status=2)
    assert "marked as failed" in refused
    assert "plan changed since" in refused  # what is skipped was made of other params
    change(place, epochs=30)
    said = pipelines(place, "replay")
    assert "resumes after step" in (place / "cache/stages/train@none-0.log").read_text()
    assert "prepare@" not in said  # a step that succeeded is not done again
    last = ends(place).iloc[-1]
    assert (last.outcome, last.version, last.champion) == ("promoted", "2", "2")
    ended = weights(place)
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(
        place, undisturbed, symlinks=True, ignore=shutil.ignore_patterns("checkpoints", "models")
    )
    call(undisturbed, sys.executable, "-m", "steps", "train", "none", "0")
    assert weights(undisturbed) == ended
    assert "nothing to go on with" in pipelines(place, "replay", status=2)


def test_damaging_images_are_refused_with_the_sets_named(place):
    draw(place / "images/train", 200, 8, shift=1)
    change(place, epochs=4)
    said = pipelines(place, "retraining")
    assert "refused, version 2 stays: imagenet falls by" in said
    verdict = json.loads((place / "reports/gate.json").read_text())
    assert not verdict["promoted"]
    assert (verdict["anchor"], verdict["candidates"]) == ("1", 3)
    assert verdict["winner_bias"] > 0
    failed = {c["name"] for c in verdict["criteria"] if not c["passed"]}
    assert failed >= {"val", "fall", "anchor", "anchor-fall"}
    anchor = json.loads((place / "reports/champion/evaluation/anchor-0/imagenet.json").read_text())
    assert anchor["images"] == 120
    drifts = json.loads((place / "reports/changes.json").read_text())["references"]
    compared = {(d["reference"], d["version"]) for d in drifts}
    assert compared == {("first baseline", "1"), ("champion's data", "2")}
    assert all(d["before"] for d in drifts)
    assert {c["dataset"] for c in verdict["criteria"] if not c["passed"]} == {
        "imagenet",
        "imagenet-r",
    }
    last = ends(place).iloc[-1]
    assert (last.outcome, last.version, last.champion) == ("rejected", "3", "2")


def test_every_judged_candidate_can_be_checked_out(place, tmp_path):
    """Params and dvc.lock of the refused one lie under its tag; the user's branch is as it was."""
    tag = ends(place).iloc[-1].git
    call(tmp_path, "git", "clone", "-q", "--branch", tag, str(place), "then")
    assert yaml.safe_load((tmp_path / "then/params.yaml").read_text())["train"]["epochs"] == 4
    assert (
        yaml.safe_load((tmp_path / "then/dvc.lock").read_text())["stages"].keys()
        == locked(place).keys()
    )
    assert call(place, "git", "log", "--format=%s", "main").split() == ["start"]


def test_lineage_leads_from_the_champion_to_the_folder_of_its_images(place):
    said = pipelines(place, "lineage", "champion")
    links = (
        "images/train",
        "data/manifests/imagenet-train.parquet",
        "models/none/seed-0",
        "version 2",
    )
    assert [link for link in links if link not in said] == []


def test_rollback_and_promotion_by_hand(place):
    assert "version 1 is champion again" in pipelines(place, "rollback", "--why", "a test")
    said = pipelines(place, "promote", "2", "--why", "a test")
    assert "version 2 is champion" in said
    assert "version 2 is the anchor, promoted by hand" in said


def test_new_validation_images_ask_for_a_new_anchor(place):
    draw(place / "images/val", 5, 9)
    said = pipelines(place, "retraining")
    assert "the validation images changed since it became the anchor" in said
    verdict = json.loads((place / "reports/gate.json").read_text())
    assert (verdict["anchor"], verdict["candidates"]) == ("2", 1)
    said = pipelines(place, "promote", "candidate", "--why", "checked")
    assert "is the anchor, promoted by hand" in said


VERSIONS = """
from pipelines.registry import registry
print("found:", len(registry.list_version_tags("densecl-vit")))
"""


def test_a_candidate_that_is_the_champion_is_not_judged(place):
    """Forced, and after labels that were damaged and repaired: the same bytes."""
    versions = call(place, sys.executable, "-c", VERSIONS)
    gate = (place / "reports/gate.json").read_bytes()
    (place / "messages").unlink(missing_ok=True)
    notify(place, "messages")
    said = pipelines(place, "retraining", "--force")
    assert (
        "nothing is trained, and the same candidate is judged again (--force), unless it is the champion"
        in said
    )
    assert "train@none-0: unchanged" in said
    kept = ends(place).iloc[-1].champion
    same = f"the candidate is the champion, version {kept}, byte for byte"
    # It was promoted by hand though it is at chance, as is said each time.
    short = f"{same}; it stays champion, but imagenet top-1 "
    assert short in said
    assert "not surely above chance (33.3 %).\n" in said
    (place / "images/train/n10000001/7_0_0.png").rename(place / "images/train/n10000002/moved.png")
    assert "refused" in pipelines(place, "retraining") or "promoted" in ends(place).iloc[-1].outcome
    pipelines(place, "promote", kept, "--why", "a test")
    assert len((place / "messages").read_text().splitlines()) == 2
    (place / "images/train/n10000002/moved.png").rename(place / "images/train/n10000001/7_0_0.png")
    notify(place, "messages", minimum={"imagenet": 1.0})
    wrong = next((place / "images/val/n10000001").iterdir())
    wrong.rename(place / "images/val/n10000002/moved.png")  # no model is right on all
    said = pipelines(place, "retraining")
    last = ends(place).iloc[-1]
    assert (last.outcome, last.champion) == ("unchanged", kept)
    assert last.said.startswith(short)
    assert last.said.endswith("below the minimum of 100.0 %")
    assert f"{last.said}.\n" in said
    messages = (place / "messages").read_text().splitlines()
    assert [short in message for message in messages] == [True, False, True]
    assert int(call(place, sys.executable, "-c", VERSIONS).split()[-1]) == (
        int(versions.split()[-1]) + 1
    )
    assert gate != (place / "reports/gate.json").read_bytes()  # of the damaged candidate
    assert "Nothing changed" in pipelines(place, "retraining", "--dry-run")


def change(place: Path, **train: int) -> None:
    values = yaml.safe_load((place / "params.yaml").read_text())
    values["train"].update(train)
    (place / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def notify(place: Path, file: str, **gate: object) -> None:
    values = yaml.safe_load((place / "params.yaml").read_text())
    values["retraining"]["notify"] = {"file": file}
    values["retraining"]["gate"] = values["retraining"].get("gate", {}) | gate
    (place / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def until(holds, patience: float = 120.0) -> None:
    started = time.monotonic()
    while not holds():
        assert time.monotonic() - started < patience
        time.sleep(0.05)
