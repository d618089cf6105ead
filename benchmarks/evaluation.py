"""Evaluating photographs with vit_tiny_patch16_224, beside timm's own loader and transform: the
same model, images and workers.
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

from benchmarks.loader import photographs
from benchmarks.measure import Row, alternate, ratio
from densecl.config.params import Network
from densecl.evaluation.predict import predict
from densecl.network.preprocessing import preprocessing
from densecl.network.vit import Backbone, build
from densecl.runtime.hardware import device, workers

MODEL, BATCH, IMAGES = "vit_tiny_patch16_224", 64, 256


def folder(place: Path) -> Path:
    """A class folder of IMAGES links to the photographs, repeated."""
    inside = place / "set" / "n00000000"
    inside.mkdir(parents=True)
    paths = photographs(place)
    for number in range(IMAGES):
        (inside / f"{number}.JPEG").symlink_to(paths[number % len(paths)].resolve())
    return place / "set"


def ours(model: Backbone, root: Path, frame: pd.DataFrame) -> float:
    rows = predict(model, frame, root, preprocessing(model), list(range(model.num_classes)), BATCH)
    return float(rows["correct"].mean())


def theirs(model: Backbone, root: Path) -> float:
    """As timm's validate.py does."""
    values, where = preprocessing(model), device()
    loader = create_loader(
        create_dataset("", root=str(root)),
        values.input_size,
        BATCH,
        interpolation=values.interpolation,
        mean=values.mean,
        std=values.std,
        num_workers=workers(),
        crop_pct=values.crop_pct,
        crop_mode=values.crop_mode,
        device=where,
        use_prefetcher=where.type == "cuda",
        pin_memory=where.type == "cuda",
    )
    model, meter = model.to(where).eval(), AverageMeter()
    with torch.inference_mode():
        for images, targets in loader:
            (right,) = accuracy(model(images.to(where)), targets.to(where))
            meter.update(right.item() / 100, len(images))
    return float(meter.avg)


def rows(place: Path) -> list[Row]:
    torch.set_num_threads(os.cpu_count() or 1)
    model, root = build(Network(model_name=MODEL), 1000, 0), folder(place)
    names = [f"n00000000/{path.name}" for path in sorted(root.glob("*/*"))]
    frame = pd.DataFrame(
        {"image_id": names, "path": names, "label": np.zeros(len(names), dtype=np.int64)}
    )
    kinds = {"ours": lambda: ours(model, root, frame), "timm": lambda: theirs(model, root)}
    assert kinds["ours"]() == kinds["timm"]()
    times = alternate(kinds, 5)
    rate = {name: f"{IMAGES / median(seen):.0f} images/s" for name, seen in times.items()}
    drawn = "" if "DENSECL_SUITE" in os.environ else "drawn "
    measure = (
        f"evaluation of {IMAGES} {drawn}photographs, {MODEL}, "
        f"{workers()} workers / timm's loader and loop"
    )
    return [
        Row(
            "P11", measure, rate["ours"], rate["timm"], ratio(times["timm"], times["ours"]), "≥ 1.0"
        )
    ]
