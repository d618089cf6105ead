"""The stage `evaluate`: one model on the six sets of the suite and their controls, against timm's
loader and loop over the six folders.
"""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import save_file

from benchmarks.measure import BenchmarkRow, make_time_row, measure_alternating
from benchmarks.photographs import score_with_timm
from densecl import paths
from densecl.config.params import TRAIN_SET, NetworkParams, load_params
from densecl.datasets.storage.image_root import list_class_folders
from densecl.network.exported import load_exported_model
from densecl.network.vit import build_model
from densecl.runtime.hardware import count_workers, get_device
from steps import evaluate, plan, prepare, validate

FOLDERS = {
    "imagenet-train": "imagenet/train",
    "imagenet": "imagenet/val",
    "imagenet-a": "imagenet-a",
    "imagenet-r": "imagenet-r",
    "imagenet-v2": "imagenetv2-matched-frequency-format-val",
    "stylized": "stylized/val",
    "sketch": "sketch",
}


def measure_suite_evaluation(folder: Path) -> list[BenchmarkRow]:
    """The model of params.yaml with random weights; both sides load it and run each image."""
    if not (suite := os.environ.get("DENSECL_SUITE")):
        print("P15 needs DENSECL_SUITE: the folder of the six sets")
        return []
    roots = {name: Path(suite, below) for name, below in FOLDERS.items()}
    values = build_params(paths.PARAMS.read_text(encoding="utf-8"), roots)
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        paths.PARAMS.write_text(yaml.safe_dump(values), encoding="utf-8")
        build_project(load_params(paths.PARAMS).network, roots)
        evaluated = [roots[name] for name in values["evaluate"]["datasets"]]
        batch_size = values["evaluate"]["batch_size"]
        calls = {
            "ours": evaluate_ours,
            "timm": lambda: evaluate_timm(evaluated, batch_size),
        }
        times = measure_alternating(calls, 5)
        images = evaluate_timm(evaluated, batch_size)
    measure = (
        f"one model on the six sets of the suite, {images} images, with controls, predictions and "
        f"metrics, {count_workers()} workers / timm's loader and loop over the six folders"
    )
    return [make_time_row("P15", measure, times, "ours", "timm", "≤ 1.0")]


def build_params(text: str, roots: Mapping[str, Path]) -> dict[str, Any]:
    """Those of a params.yaml, with the sets of the suite alone and without probes."""
    values: dict[str, Any] = yaml.safe_load(text)
    values["datasets"] = {
        name: values["datasets"].get(name, {}) | {"root": str(root), "tracked_by": str(root)}
        for name, root in roots.items()
    }
    values["evaluate"] |= {"datasets": [name for name in roots if name != TRAIN_SET], "probes": {}}
    return values | {"render": {}, "transfer": {}, "modes": ["none"]}


def build_project(network: NetworkParams, roots: dict[str, Path]) -> None:
    """Manifests, verdicts and an exported model in the working directory."""
    plan.main()
    for name in roots:
        prepare.main(name)
    validate.main()
    classes = list_class_folders(roots["imagenet-train"])
    model, target = build_model(network, len(classes), 0), paths.model_folder("none", 0)
    target.mkdir(parents=True)
    save_file(model.state_dict(), target / "model.safetensors")
    config = {
        "architecture": network.model_name,
        "model_args": network.model_args,
        "num_classes": len(classes),
        "classes": classes,
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")


def evaluate_ours() -> None:
    """The stage without what an earlier call kept."""
    for made in (Path("cache/evaluation"), paths.EVALUATION, paths.PREDICTIONS):
        shutil.rmtree(made, ignore_errors=True)
    evaluate.main("none", 0)


def evaluate_timm(roots: list[Path], batch_size: int) -> int:
    """As timm's validate.py, folder by folder; the number of images."""
    model, _ = load_exported_model(paths.model_folder("none", 0))
    return sum(len(score_with_timm(model.to(get_device()), root, batch_size)) for root in roots)
