"""A project in a folder of its own: the code, small sets of drawn images, and params that train in
seconds.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

ROOT = Path(__file__).parents[2]
PARTS = ("densecl", "steps", "pipelines", ".dvc", "dvc.yaml", ".dvcignore", ".gitignore")
WNIDS = ("n10000001", "n10000002", "n10000003")
HUES = ((200, 60, 60), (60, 200, 60), (60, 60, 200))
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONDONTWRITEBYTECODE": "",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
}
PARAMS: dict[str, Any] = {
    "modes": ["none"],
    "seeds": [0],
    "render": {},
    "datasets": {
        "imagenet-train": {"root": "images/train", "tracked_by": "images/train"},
        "imagenet": {"root": "images/val", "tracked_by": "images/val"},
        "imagenet-r": {"root": "images/r", "tracked_by": "images/r"},
    },
    "network": {
        "model_name": "vit_tiny_patch16_224",
        "model_args": {
            "img_size": 16,
            "patch_size": 4,
            "embed_dim": 24,
            "depth": 1,
            "num_heads": 2,
        },
    },
    "data": {"cache": "ram", "view1": {"scale": [0.5, 1.0]}, "view2": {"scale": [0.5, 1.0]}},
    "train": {"batch_size": 32, "epochs": 4, "learning_rate": 0.003, "warmup_epochs": 1},
    "evaluate": {"datasets": ["imagenet", "imagenet-r"]},
    "cost": {"seconds": 5},  # too short to measure anything
    "retraining": {"gate": {"margin": 0.05}, "git": "commit"},
}


def draw(folder: Path, per_class: int, seed: int, *, shift: int = 0) -> None:
    """`per_class` images of each of three hues, 16 px; with `shift` 1 each lies in the folder of
    the next class.
    """
    rng = np.random.default_rng(seed)
    for label in range(len(WNIDS)):
        place = folder / WNIDS[(label + shift) % len(WNIDS)]
        place.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = np.clip(np.array(HUES[label]) + rng.normal(0, 40, (16, 16, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(place / f"{seed}_{shift}_{number}.png")


def project(place: Path, **sections: Any) -> Path:
    """A committed project under `place`, on which nothing has run; `sections` replace those of
    PARAMS.
    """
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(
                source, place / part, ignore=shutil.ignore_patterns("__pycache__", "cache", "tmp")
            )
        else:
            shutil.copy(source, place / part)
    for name, per_class, seed in (("train", 40, 0), ("val", 40, 1), ("r", 20, 2)):
        draw(place / "images" / name, per_class, seed)
    (place / "params.yaml").write_text(yaml.safe_dump(PARAMS | sections, sort_keys=False))
    (place / ".gitignore").write_text((ROOT / ".gitignore").read_text() + "/images/\n")
    for command in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "start")):
        call(place, "git", *command)
    return place


def call(place: Path, *command: str, status: int = 0) -> str:
    """What the command said on both streams; fails unless it ends with `status`."""
    done = subprocess.run(
        command, cwd=place, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == status, f"{command}: status {done.returncode}\n{said}"
    return said


def pipelines(place: Path, *arguments: str, status: int = 0) -> str:
    return call(place, sys.executable, "-m", "pipelines", *arguments, status=status)
