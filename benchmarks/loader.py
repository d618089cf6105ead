"""Two 224 px views of full-size JPEGs on one core, against torchvision and against decoding."""

from __future__ import annotations

import io
import os
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.measure import BenchmarkRow, format_ratio, measure_alternating
from densecl.config.params import DataParams
from densecl.datasets.synthetic.styles import PHOTO, render_photograph
from densecl.datasets.views.read_pixels import read_pixels
from densecl.datasets.views.two_views import augment_view, draw_crops
from densecl.runtime.hardware import reuse_freed_memory

SIZE = (224, 224)


def list_photographs(folder: Path) -> list[Path]:
    """`full/` of the suite that DENSECL_SUITE names; without it 32 drawn ones of 512 px."""
    suite = os.environ.get("DENSECL_SUITE")
    if suite:
        return sorted(Path(suite, "full").glob("*.JPEG"))
    paths = [folder / f"{number}.jpg" for number in range(32)]
    for number, path in enumerate(paths):
        render_photograph(number % 12, PHOTO, 512, np.random.default_rng(number))[0].save(
            path, quality=92
        )
    return paths


def make_views(paths: list[Path]) -> None:
    """As `TwoViewDataset` makes them."""
    data = DataParams()
    for number, path in enumerate(paths):
        pixels, rng = read_pixels(path), np.random.default_rng(number)
        crops = draw_crops(pixels.shape[1], pixels.shape[0], data, rng)
        for view, crop in zip((data.view1, data.view2), crops, strict=True):
            augment_view(pixels, view, crop, data, SIZE, rng)


def make_torchvision_views(paths: list[Path]) -> None:
    """The same views by torchvision's transforms on Pillow images, decoded once too."""
    common = [transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)]
    blur = transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], 0.2)
    first = transforms.Compose(
        [transforms.RandomResizedCrop(224), *common, transforms.PILToTensor()]
    )
    second = transforms.Compose(
        [transforms.RandomResizedCrop(224, (0.2, 1.0)), *common, blur, transforms.PILToTensor()]
    )
    for path in paths:
        image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        first(image), second(image)


def measure_rows(folder: Path) -> list[BenchmarkRow]:
    reuse_freed_memory()  # as in a training, whose loader processes inherit it
    paths, threads = list_photographs(folder), torch.get_num_threads()
    torch.set_num_threads(1)
    calls = {
        "views": lambda: make_views(paths),
        "torchvision": lambda: make_torchvision_views(paths),
        "decode": lambda: [read_pixels(path) for path in paths],
    }
    times = measure_alternating(calls, 5)
    torch.set_num_threads(threads)
    rate = {name: f"{len(paths) / median(seconds):.0f} images/s" for name, seconds in times.items()}
    measure = (
        f"two 224 px views of {len(paths)} "
        f"{'' if 'DENSECL_SUITE' in os.environ else 'drawn '}photographs, one core"
    )
    return [
        BenchmarkRow(
            "P9",
            f"{measure} / torchvision on Pillow",
            rate["views"],
            rate["torchvision"],
            format_ratio(times["torchvision"], times["views"]),
            "≥ 3.0",
        ),
        BenchmarkRow(
            "P10",
            f"{measure} / decoding alone",
            rate["views"],
            rate["decode"],
            format_ratio(times["decode"], times["views"]),
            "≥ 0.45",
        ),
    ]
