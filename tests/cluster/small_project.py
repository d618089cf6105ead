"""A project whose stages take seconds, with what a machine of its own made of it."""

import shutil
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.pipelines.project_factory import call, project

SETS = {
    "imagenet-train": {"style": "photo", "folder": "train", "images_per_class": 4, "size": 32},
    "imagenet": {"style": "photo", "folder": "val", "images_per_class": 2, "size": 32, "seed": 1},
}
SECTIONS: dict[str, Any] = {
    "modes": ["none", "global"],
    "render": SETS,
    "datasets": {
        n: dict.fromkeys(("root", "tracked_by"), f"data/rendered/{s['folder']}")
        for n, s in SETS.items()
    },
    "evaluate": {"datasets": ["imagenet"]},
    "train": {"batch_size": 20, "epochs": 1, "learning_rate": 0.003, "warmup_epochs": 0.5},
    "cost": {"seconds": 1},
}
DVC = (sys.executable, "-m", "dvc")


def make_project(place: Path, **sections: Any) -> Path:
    """A committed project on which nothing has run, whose remote is a folder beside it."""
    return project(place, **SECTIONS | sections)


def repeat_project(finished: Path, place: Path) -> Path:
    """The same project in another folder, on which nothing has run."""
    call(finished, "git", "clone", "-q", str(finished), str(place))
    images = finished / "images"
    if images.exists():
        shutil.copytree(images, place / "images")
    return place


def set_params(place: Path, **sections: Any) -> None:
    """Replace sections of params.yaml."""
    params = yaml.safe_load((place / "params.yaml").read_text())
    (place / "params.yaml").write_text(yaml.safe_dump(params | sections, sort_keys=False))


def use_bucket(place: Path, address: str, prefix: str) -> None:
    """Make S3 the project's remote."""
    call(place, *DVC, "remote", "add", "--default", "s3", f"s3://bucket/{prefix}")
    call(place, *DVC, "remote", "modify", "s3", "endpointurl", address)


def read_stable_lock(place: Path) -> dict[str, Any]:
    """dvc.lock in order, without what varies with the machine: outs of `cost` and `report`, what
    `report` reads of `cost`, and the hash of params.yaml, whose section `cluster` may differ.
    """
    stages = yaml.safe_load((place / "dvc.lock").read_text())["stages"]
    for name in ("cost", "report"):
        stages[name].pop("outs")
    for dep in [*stages["report"]["deps"], *stages["plan"]["deps"]]:
        if dep["path"] in {"reports/cost.json", "params.yaml"}:
            dep.clear()
    return {"order": list(stages), **stages}
