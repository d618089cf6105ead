"""Prune takes what removed modes, seeds and sets left behind, and nothing else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml

from pipelines.prune import main
from tests.pipelines.project_factory import ENVIRONMENT, project as laid

pytestmark = pytest.mark.filterwarnings(
    "ignore:_NoneStep.value:DeprecationWarning"
)  # pygtrie's, at DVC
HASH = "0123456789abcdef0123456789abcdef"
ROOT_STAGES = {
    "prepare@imagenet": ["data/manifests/imagenet.parquet"],
    "train@none-0": ["models/none/seed-0", "reports/training/none-0"],
    "train@dense-1": ["models/dense/seed-1", "reports/training/dense-1"],
    "render@old": ["data/rendered/imagenet/old", "data/rendered/masks/imagenet/old"],
    "evaluate@imagenet-none-0": ["reports/evaluation/imagenet/none-0.json"],
    "evaluate@sketch-dense-1": ["reports/evaluation/sketch/dense-1.json"],
    "crafted": ["../outside/file", "images/train", "densecl", "/etc/passwd", "models/../densecl"],
}
CHAMPION_STAGES = {
    "imagenet": ["reports/champion/evaluation/imagenet/champion-0.json"],
    "sketch": ["reports/champion/evaluation/sketch/champion-0.json"],
}
STALE = {
    "models/dense/seed-1",
    "models/global/seed-0",
    "reports/training/dense-1",
    "data/rendered/imagenet/old",
    "data/manifests/sketch.parquet",
    "reports/evaluation/sketch/dense-1.json",
    "reports/predictions/sketch/dense-1.control.parquet",
    "reports/champion/evaluation/sketch/champion-0.json",
}
KEPT = {
    "models/none/seed-0/model.safetensors",
    "models/champion/seed-0/config.json",
    "models/card.md",
    "models/mine/weights.bin",
    "models/dense/notes.txt",
    "data/manifests/imagenet.parquet",
    "data/rendered/mine/image.png",
    "reports/training/none-0/history.csv",
    "reports/evaluation/imagenet/none-0.json",
    "reports/champion/evaluation/imagenet/champion-0.json",
    "reports/evaluation/readme.txt",
    "checkpoints/0123/step-1.pt",
    "data/mine/file",
    "reports/report.html",
}


def lock(stages: dict[str, list[str]]) -> str:
    outs = {
        name: {
            "cmd": f"python -m steps {name}",
            "outs": [{"path": p, "hash": "md5", "md5": HASH, "size": 1} for p in paths],
        }
        for name, paths in stages.items()
    }
    return dumps_yaml({"schema": "2.0", "stages": outs})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return laid(tmp_path_factory.mktemp("prune") / "project")


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project with leftovers of a mode, a seed and a set, beside files that are no
    leftovers.
    """
    monkeypatch.chdir(made)
    subprocess.run(["git", "clean", "-fdxq", "--exclude=images", "--exclude=.dvc"], check=True)
    write(KEPT)
    write({path if "." in path else f"{path}/file" for path in STALE})
    write(
        {
            "data/rendered/imagenet/train/kept.png",
            "models/dense/.gitignore",
            "reports/evaluation/sketch/.gitignore",
        }
    )
    write({"../outside/file"})
    Path("models/dense/seed-1/link").symlink_to(Path("images").absolute())
    Path("dvc.lock").write_text(lock(ROOT_STAGES))
    Path("reports/champion/dvc.lock").write_text(lock(CHAMPION_STAGES))
    return made


def write(paths: Iterable[str]) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("x" * 1500)


def everything() -> set[str]:
    return {
        str(p)
        for p in Path().rglob("*")
        if ".dvc" not in p.parts and ".git" not in p.parts and p.name != "retraining.lock"
    }


def listed(said: str) -> set[str]:
    return {
        line.split()[-1]
        for line in said.splitlines()
        if line.startswith(" ") and "entry" not in line and "stays" not in line
    }


def test_without_yes_it_only_lists(project, capsys):
    before = everything()
    main(yes=False)
    said = capsys.readouterr().out
    assert listed(said) == STALE
    assert "dvc.lock: train@dense-1" in said
    assert "reports/champion/dvc.lock: sketch" in said
    assert "train@none-0" not in said
    assert "checkpoints stays" in said
    assert said.endswith(
        "nothing is removed; `python -m pipelines prune --yes` removes what is listed\n"
    )
    assert everything() - {"cache"} == before - {"cache"}


def test_yes_removes_what_is_listed_and_nothing_else(project, capsys):
    images = {p for p in everything() if p.startswith("images")}
    main(yes=True)
    assert "dvc gc" in capsys.readouterr().out
    left = everything()
    assert left >= KEPT | images
    assert not left & STALE
    assert Path("../outside/file").exists()
    assert not Path("reports/evaluation/sketch").exists()  # held no more than DVC's .gitignore
    kept = {
        name: ROOT_STAGES[name]
        for name in ("prepare@imagenet", "train@none-0", "evaluate@imagenet-none-0")
    }
    assert Path("dvc.lock").read_text() == lock(kept)
    assert Path("reports/champion/dvc.lock").read_text() == lock(
        {"imagenet": CHAMPION_STAGES["imagenet"]}
    )
    main(yes=True)
    assert capsys.readouterr().out.startswith("nothing is left behind\n")


def test_what_a_stage_writes_below_a_leftover_stays(project, capsys):
    stages = ROOT_STAGES | {"render@older": ["models/none"]}
    Path("dvc.lock").write_text(lock(stages))
    write({"models/none/stray"})
    main(yes=True)
    assert "models/none/stray" in capsys.readouterr().out
    assert Path("models/none/seed-0/model.safetensors").exists()


def test_a_linked_folder_is_left_alone(project, tmp_path, capsys):
    elsewhere = tmp_path / "big"
    Path("models").rename(elsewhere)
    Path("models").symlink_to(elsewhere)
    main(yes=True)
    assert (elsewhere / "dense/seed-1/file").exists()
    assert not listed(capsys.readouterr().out) & {"models/dense/seed-1"}


@pytest.mark.parametrize(("answer", "stays"), [(b"n\n", True), (b"y\n", False)])
def test_at_a_terminal_it_asks(project, answer, stays):
    ours, theirs = pty.openpty()
    try:
        os.write(ours, answer)
        subprocess.run(
            [sys.executable, "-c", "from pipelines.prune import main; main(yes=False)"],
            stdin=theirs,
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert Path("models/dense/seed-1").exists() is stays
