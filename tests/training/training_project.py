"""A project folder in which `python -m steps train MODE SEED` runs in seconds, without DVC."""

import os
import sys
from pathlib import Path
from typing import Any

import yaml

from densecl import paths
from densecl.artifacts import ValidationResult, write_json
from densecl.config.params import parse_params
from densecl.datasets.manifests.listing import list_classes
from densecl.datasets.manifests.scan import scan_dataset
from densecl.datasets.storage.manifest import write_manifest
from steps.unit_plans import resolve_plans
from tests.conftest import draw_set

ROOT = Path(__file__).parent.parent.parent
PARAMS: dict[str, Any] = {
    "modes": ["dense", "global", "none"],
    "seeds": [0],
    "render": {},
    "datasets": {
        name: {"root": name, "tracked_by": name} for name in ("imagenet-train", "imagenet")
    },
    "network": {
        "model_name": "vit_tiny_patch16_224",
        "model_args": {
            "img_size": 32,
            "patch_size": 8,
            "embed_dim": 32,
            "depth": 2,
            "num_heads": 2,
        },
    },
    "contrast": {
        "queue_size": 96,
        "patches_per_image": 8,
        "dense_dim": 16,
        "key_encoder": "momentum",
    },
    "train": {
        "batch_size": 8,
        "epochs": 4,
        "learning_rate": 3e-3,
        "warmup_epochs": 1.0,
        "drop_path": 0.1,
    },
    "evaluate": {"datasets": ["imagenet"]},
}
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # no server: one line, then no MLflow
}
STEPS = [sys.executable, "-m", "steps"]


def prepare(place: Path, per_class: int = 24, **train: Any) -> Path:
    """Write all that the training stage reads to `place`, which must be the working directory."""
    params = parse_params(PARAMS | {"train": PARAMS["train"] | train}, "params.yaml")
    (place / "params.yaml").write_text(
        yaml.safe_dump(PARAMS | {"train": PARAMS["train"] | train}), encoding="utf-8"
    )
    for name, count, seed in (("imagenet-train", per_class, 0), ("imagenet", 4, 1)):
        if not (place / name).exists():
            draw_set(place / name, count, seed=seed)
        frame = scan_dataset(name, Path(name), "wnid", list_classes(Path("imagenet-train")), 1)
        write_manifest(frame, paths.manifest_file(name))
        verdict = ValidationResult(
            dataset=name,
            passed=True,
            images=len(frame),
            classes=3,
            excluded=(),
            absent=(),
            failures=(),
            warnings=(),
        )
        write_json(paths.validation_file(name), verdict)
    for unit, record in resolve_plans(params).items():
        write_json(paths.plan_file(unit), record)
    return place
