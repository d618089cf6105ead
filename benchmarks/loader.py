"""Two 224 px views of full-size JPEG photographs on one core, beside torchvision on Pillow and
beside decoding alone.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.measure import Row, alternate, ratio
from densecl.config.params import Data
from densecl.datasets.synthetic.styles import PHOTO, photograph
from densecl.datasets.views.read_pixels import read_pixels
from densecl.datasets.views.two_views import augment, draw_crops
from densecl.runtime.hardware import reuse_freed_memory

SIZE = (224, 224)


def photographs(place: Path) -> list[Path]:
    """`full/` of the suite that DENSECL_SUITE names; without it 32 drawn ones of 512 px."""
    suite = os.environ.get("DENSECL_SUITE")
    if suite:
        return sorted(Path(suite, "full").glob("*.JPEG"))
    paths = [place / f"{number}.jpg" for number in range(32)]
    for number, path in enumerate(paths):
        photograph(number % 12, PHOTO, 512, np.random.default_rng(number))[0].save(path, quality=92)
    return paths


def views(paths: list[Path]) -> None:
    """As `TwoViews` makes them."""
    data = Data()
    for number, path in enumerate(paths):
        pixels, rng = read_pixels(path), np.random.default_rng(number)
        crops = draw_crops(pixels.shape[1], pixels.shape[0], data, rng)
        for view, crop in zip((data.view1, data.view2), crops, strict=True):
            augment(pixels, view, crop, data, SIZE, rng)


def torchvision_views(paths: list[Path]) -> None:
    """The same views by torchvision's transforms on Pillow images, decoded once too."""
    same = [transforms.RandomHorizontalFlip(), transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)]
    blur = transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], 0.2)
    first = transforms.Compose([transforms.RandomResizedCrop(224), *same, transforms.PILToTensor()])
    second = transforms.Compose(
        [transforms.RandomResizedCrop(224, (0.2, 1.0)), *same, blur, transforms.PILToTensor()]
    )
    for path in paths:
        image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
        first(image), second(image)


def rows(place: Path) -> list[Row]:
    reuse_freed_memory()  # as in a training, whose loader processes inherit it
    paths, threads = photographs(place), torch.get_num_threads()
    torch.set_num_threads(1)
    kinds = {
        "views": lambda: views(paths),
        "torchvision": lambda: torchvision_views(paths),
        "decode": lambda: [read_pixels(path) for path in paths],
    }
    times = alternate(kinds, 5)
    torch.set_num_threads(threads)
    rate = {name: f"{len(paths) / median(seen):.0f} images/s" for name, seen in times.items()}
    measure = (
        f"two 224 px views of {len(paths)} "
        f"{'' if 'DENSECL_SUITE' in os.environ else 'drawn '}photographs, one core"
    )
    return [
        Row(
            "P9",
            f"{measure} / torchvision on Pillow",
            rate["views"],
            rate["torchvision"],
            ratio(times["torchvision"], times["views"]),
            "≥ 3.0",
        ),
        Row(
            "P10",
            f"{measure} / decoding alone",
            rate["views"],
            rate["decode"],
            ratio(times["decode"], times["views"]),
            "≥ 0.45",
        ),
    ]
