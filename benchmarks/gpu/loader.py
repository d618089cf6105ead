"""The real loader of a training on drawn photographs, with the colour changes on CPU or device."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.measure import BenchmarkRow, Call, make_rate_row, measure_alternating
from benchmarks.steps import StepSetup, build_step
from densecl.config.params import DataParams
from densecl.datasets.views.device_transforms import finish_batch
from densecl.runtime.hardware import count_workers, get_device

DRAWN = 16  # different photographs


def draw_photographs(folder: Path, images: int, size: int) -> pd.DataFrame:
    """A manifest's columns of `images` rows over DRAWN drawn JPEGs of size x size px."""
    from densecl.datasets.synthetic.photographs import PHOTO, render_photograph

    names = [f"{number}.jpg" for number in range(DRAWN)]
    for number, name in enumerate(names):
        drawing = render_photograph(number % 12, PHOTO, size, np.random.default_rng(number))
        drawing.image.save(folder / name, quality=92)
    rows = np.arange(images)
    paths = np.array(names)[rows % DRAWN]
    return pd.DataFrame({"path": paths, "label": rows % 12, "image_id": rows.astype(str)})


def build_epoch(setup: StepSetup, frame: pd.DataFrame, folder: Path, augment_on: str) -> Call:
    """Load one epoch, finish each batch on the device, and wait for it."""
    from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader

    size = setup.model_args.get("img_size", 224)
    data = DataParams.model_validate({"augment_on": augment_on})
    views = TwoViewDataset(frame, folder, data, (size, size), 0)
    steps = len(frame) // setup.batch

    def load_epoch() -> None:
        loader = create_epoch_loader(views, 0, setup.batch, steps, count_workers())
        for loaded in loader:
            finish_batch(loaded, get_device())
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return load_epoch


def measure_loader(setup: StepSetup, images: int, rounds: int, pixels: int) -> list[BenchmarkRow]:
    """Images/s with `augment_on: device` against `cpu`, and against what a step of none consumes.

    The start of the workers is part of an epoch, as in a training.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = draw_photographs(folder, images, pixels)
        build: Callable[[str], Call] = partial(build_epoch, setup, frame, folder)
        calls = {"device": build("device"), "cpu": build("cpu")}
        times = measure_alternating(calls, rounds)
    step = build_step(setup, "none")
    step_times = measure_alternating({"step": step}, rounds)["step"]
    times["steps"] = [seconds * (images // setup.batch) for seconds in step_times]
    of = f"loader on {count_workers()} workers, {images:,} drawn photographs of {pixels} px"
    rows = (
        (f"{of}, augment_on: device / cpu", "device", "cpu", "≥ 1.2"),
        (f"{of}, augment_on: device / steps of none, {setup.setting}", "device", "steps", "≥ 1.0"),
    )
    return [
        make_rate_row("LOAD", measure, times, ours, peer, target, images, "images")
        for measure, ours, peer, target in rows
    ]
