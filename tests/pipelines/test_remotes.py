"""Everything can be pushed, lost and pulled again, and a fresh clone runs nothing: over S3 and over
a local folder.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipelines import project_factory as room
from tests.pipelines.project_factory import call, project
from tests.s3_server import KEYS, serve_s3

pytestmark = pytest.mark.slow

SETS = {
    "imagenet-train": {"style": "photo", "folder": "train", "images_per_class": 4, "size": 32},
    "imagenet": {"style": "photo", "folder": "val", "images_per_class": 2, "size": 32, "seed": 1},
}
SECTIONS = {
    "render": SETS,
    "datasets": {
        n: dict.fromkeys(("root", "tracked_by"), f"data/rendered/{s['folder']}")
        for n, s in SETS.items()
    },
    "evaluate": {"datasets": ["imagenet"]},
    "train": {"batch_size": 24, "epochs": 1, "learning_rate": 0.003, "warmup_epochs": 0.5},
}
OUTS = ("data", "models", "reports")
DVC = (sys.executable, "-m", "dvc")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real dvc.yaml run once, by params with a set to train on, a set to evaluate on and one
    epoch; all committed.
    """
    place = project(tmp_path_factory.mktemp("remotes") / "here" / "densecl", **SECTIONS)
    call(place, *DVC, "repro", "--quiet")
    commit(place)
    return place


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of a local S3 server with a bucket."""
    with serve_s3("bucket") as address:
        yield address


def commit(place: Path) -> None:
    call(place, "git", "add", "dvc.lock", ".dvc/config")
    call(place, "git", "commit", "-q", "--allow-empty", "-m", "ran")


def contents(place: Path) -> dict[str, bytes]:
    """Of everything that DVC holds."""
    told = [
        line
        for line in call(place, *DVC, "ls", ".", "--dvc-only", "--recursive").splitlines()
        if line
    ]
    return {name: (place / name).read_bytes() for name in told}


def lose(place: Path) -> None:
    for folder in (".dvc/cache", ".dvc/tmp", *OUTS):
        shutil.rmtree(place / folder, ignore_errors=True)
    call(place, "git", "checkout", "-q", ".")


def round_trip(place: Path, clone: Path) -> None:
    """Push, lose and pull; then clone, and repeat."""
    before = contents(place)
    assert {name.split("/")[0] for name in before} == set(OUTS)
    assert "models/none/seed-0/model.safetensors" in before
    call(place, *DVC, "push", "--quiet", "--run-cache")
    lose(place)
    assert not (place / "models").exists()
    call(place, *DVC, "pull", "--quiet")
    assert contents(place) == before
    call(place, "git", "clone", "-q", str(place), str(clone))
    said = call(clone, *DVC, "repro", "--pull")
    assert "Running stage" not in said
    assert said.endswith("Data and pipelines are up to date.\n")
    assert call(clone, "git", "diff") == ""  # dvc.lock neither
    assert contents(clone) == before


def test_s3(finished, s3, tmp_path, monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setitem(room.ENVIRONMENT, name, value)
    call(finished, *DVC, "remote", "add", "--default", "s3", "s3://bucket/densecl")
    call(finished, *DVC, "remote", "modify", "s3", "endpointurl", s3)
    commit(finished)
    round_trip(finished, tmp_path / "clone")


def test_a_local_folder_beside_the_project_by_default(finished):
    shutil.copy(room.ROOT / ".dvc/config", finished / ".dvc/config")
    commit(finished)
    round_trip(finished, finished.parent / "clone")
    assert (finished.parent / "densecl-remote/files/md5").is_dir()
