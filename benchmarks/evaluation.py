"""Evaluation of photographs with vit_tiny_patch16_224 against timm's own loader and transform.

Same model, images and number of workers.
"""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
import torch
from timm.data import create_dataset, create_loader
from timm.utils import AverageMeter, accuracy

from benchmarks.loader import list_photographs
from benchmarks.measure import BenchmarkRow, format_ratio, measure_alternating
from densecl.config.params import NetworkParams
from densecl.evaluation.predict import predict_images
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone, build_model
from densecl.runtime.hardware import count_workers, get_device

MODEL, BATCH, IMAGES = "vit_tiny_patch16_224", 64, 256


def build_image_folder(root: Path) -> Path:
    """A class folder of IMAGES links to the photographs, repeated."""
    class_folder = root / "set" / "n00000000"
    class_folder.mkdir(parents=True)
    paths = list_photographs(root)
    for number in range(IMAGES):
        (class_folder / f"{number}.JPEG").symlink_to(paths[number % len(paths)].resolve())
    return root / "set"


def evaluate_ours(model: Backbone, root: Path, frame: pd.DataFrame) -> float:
    rows = predict_images(
        model, frame, root, resolve_preprocessing(model), list(range(model.num_classes)), BATCH
    )
    return float(rows["correct"].mean())


def evaluate_timm(model: Backbone, root: Path) -> float:
    """As timm's validate.py does."""
    data_config, model_device = resolve_preprocessing(model), get_device()
    loader = create_loader(
        create_dataset("", root=str(root)),
        data_config.input_size,
        BATCH,
        interpolation=data_config.interpolation,
        mean=data_config.mean,
        std=data_config.std,
        num_workers=count_workers(),
        crop_pct=data_config.crop_pct,
        crop_mode=data_config.crop_mode,
        device=model_device,
        use_prefetcher=model_device.type == "cuda",
        pin_memory=model_device.type == "cuda",
    )
    model, meter = model.to(model_device).eval(), AverageMeter()
    with torch.inference_mode():
        for images, targets in loader:
            (top1,) = accuracy(model(images.to(model_device)), targets.to(model_device))
            meter.update(top1.item() / 100, len(images))
    return float(meter.avg)


def measure_rows(folder: Path) -> list[BenchmarkRow]:
    torch.set_num_threads(os.cpu_count() or 1)
    model, root = build_model(NetworkParams(model_name=MODEL), 1000, 0), build_image_folder(folder)
    names = [f"n00000000/{path.name}" for path in sorted(root.glob("*/*"))]
    frame = pd.DataFrame(
        {"image_id": names, "path": names, "label": np.zeros(len(names), dtype=np.int64)}
    )
    calls = {
        "ours": lambda: evaluate_ours(model, root, frame),
        "timm": lambda: evaluate_timm(model, root),
    }
    assert calls["ours"]() == calls["timm"]()
    times = measure_alternating(calls, 5)
    rate = {name: f"{IMAGES / median(seconds):.0f} images/s" for name, seconds in times.items()}
    drawn = "" if "DENSECL_SUITE" in os.environ else "drawn "
    measure = (
        f"evaluation of {IMAGES} {drawn}photographs, {MODEL}, "
        f"{count_workers()} workers / timm's loader and loop"
    )
    return [
        BenchmarkRow(
            "P11",
            measure,
            rate["ours"],
            rate["timm"],
            format_ratio(times["timm"], times["ours"]),
            "≥ 1.0",
        )
    ]
