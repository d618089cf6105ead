"""`python -m pipelines study` whole, on a tiny project: killed within a trial and within a training,
and run again from what it keeps.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from densecl import paths
from tests.pipelines.project_factory import ENVIRONMENT, PARAMS, call, pipelines, project

pytestmark = [pytest.mark.slow, pytest.mark.kills]

NAME, BUDGET = "tiny", 2
FILE = paths.STUDIES / f"{NAME}.yaml"
SETTINGS: dict[str, Any] = {
    "modes": ["dense", "none"],
    "train": {**PARAMS["train"], "epochs": 2},
    "contrast": {"queue_size": 256, "dense_dim": 8, "key_encoder": "momentum"},
    "sweep": {"epochs": 1},
}
STUDY = {
    "question": "Does a study survive?",
    "params": "studies/tiny-params.yaml",
    "budget": BUDGET,
    "ablations": "studies/tiny-ablations.yaml",
    "ablation_seeds": 1,
}
FACTORS = {"keys": {"dense-keys-shared": {"base": "dense", "contrast": {"key_encoder": "shared"}}}}


def make_project(place: Path) -> Path:
    root = project(place, **SETTINGS)
    files = {
        FILE: STUDY,
        Path(STUDY["params"]): PARAMS | SETTINGS,
        Path(STUDY["ablations"]): {"factors": FACTORS},
    }
    for path, content in files.items():
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(yaml.safe_dump(content, sort_keys=False))
    commit(root, "the protocol")
    return root


def commit(root: Path, message: str) -> None:
    call(root, "git", "add", "-A", "studies")
    call(root, "git", "commit", "-qm", message)


def kill_when(root: Path, pattern: str, count: int) -> None:
    """Run the study, and kill the whole group once `count` files of the pattern are there."""
    with (root / "killed.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines", "study", str(FILE)],
            cwd=root,
            env=ENVIRONMENT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        deadline = time.monotonic() + 300
        while len(list(root.glob(pattern))) < count and time.monotonic() < deadline:
            assert process.poll() is None, (root / "killed.log").read_text()
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    (root / "killed.log").unlink()
    assert len(list(root.glob(pattern))) >= count


def read_tables(root: Path) -> list[pd.DataFrame]:
    """What the study found, without times."""
    kept = root / paths.study_folder(NAME)
    tables = [pd.read_csv(kept / name) for name in ("comparison.csv", "ablations.csv", "sweep.csv")]
    return [table.drop(columns=table.filter(like="step_time").columns) for table in tables]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was killed in its sweep and in its first training."""
    root = make_project(tmp_path_factory.mktemp("studied"))
    kill_when(root, f"{paths.sweep_folder(NAME)}/trials/*/result.json", 1)
    kill_when(root, f"{paths.TRAINING}/*/history.csv", 1)
    pipelines(root, "study", str(FILE))
    return root


def test_a_killed_study_ends_with_equal_budgets_and_all_its_parts(studied: Path):
    kept = studied / paths.study_folder(NAME)
    trials = pd.read_csv(kept / "sweep.csv")
    assert trials.groupby("mode").size().to_dict() == {"dense": BUDGET, "none": BUDGET}
    assert set(pd.read_csv(kept / "ablations.csv")["variant"]) == {"dense-keys-shared"}
    text = (kept / paths.STUDY_TEXT.name).read_text().replace("\\", "")
    assert text == (studied / paths.STUDY_TEXT).read_text().replace("\\", "")
    assert "The files are those of the protocol." in text
    assert "Results were there before" not in text
    assert "dense-keys-shared" in text


def test_again_from_the_kept_files_alone_it_gives_the_same_tables(studied: Path, tmp_path: Path):
    """In a clone, where its models and trials are not; killed once more, within a training."""
    commit(studied, "the results")
    root = tmp_path / "again"
    call(tmp_path, "git", "clone", "-q", str(studied), str(root))
    shutil.copytree(studied / "images", root / "images")  # which git does not have
    kill_when(root, f"{paths.TRAINING}/*/history.csv", 2)
    pipelines(root, "study", str(FILE))
    trained, taken = (
        list((place / paths.sweep_folder(NAME)).rglob("history.csv")) for place in (studied, root)
    )
    assert (len(trained), len(taken)) == (2 * BUDGET, 0)  # no trial was trained again
    text = (root / paths.STUDY_TEXT).read_text()
    assert "The files are those of the protocol." in text
    assert "The code was not that of one commit" not in text
    for again, first in zip(read_tables(root), read_tables(studied), strict=True):
        pd.testing.assert_frame_equal(again, first)
    protocol = paths.study_protocol(NAME)
    assert (root / protocol).read_bytes() == (studied / protocol).read_bytes()
