"""Shared fixtures: small image sets in the official layouts, and the suite of real images where it
is given.
"""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from playwright.sync_api import Browser, sync_playwright
from safetensors.torch import save_file

from densecl.artifacts import SkippedFiles
from tests.page_checks import CHROMIUM

torch.set_num_threads(1)  # tensors here are tiny: threads only wait for each other

WNIDS = ("n10000001", "n10000002", "n10000003")
# Begun first, longest first, so that no worker ends alone with one.
LONGEST = (
    "test_real_shape.py",
    "test_slurm.py",
    "test_ray.py",
    "test_retraining.py",
    "test_pipeline.py",
    "test_study_run.py",
    "test_processes.py",
    "test_engine_kills.py",
    "test_sweep.py",
    "test_cluster.py",
    "test_suite.py",
    "test_remotes.py",
    "test_copies.py",
    "test_browser.py",
    "test_benchmarks.py",
    "test_resume.py",
    "test_statistics.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


def draw_set(
    root: Path, per_class: int, size: int = 32, seed: int = 0, folders: tuple[str, ...] = WNIDS
) -> Path:
    """A folder a class; each class its own hue, so that a model can learn them."""
    rng = np.random.default_rng(seed)
    for label, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 90, (size, size, 3))
            pixels[..., label % 3] += 150
            pixels[: size // 2, :, (label // 3 + 1) % 3] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(
                root / folder / f"image_{seed}_{number}.JPEG"
            )
    return root


def skip_nothing(datasets: Iterable[str]) -> dict[str, SkippedFiles]:
    """What `prepare` leaves for datasets that hold nothing but images in class folders."""
    return {name: SkippedFiles(dataset=name, skipped={}) for name in datasets}


def write_model(folder: Path, classes: list[str], model_args: dict[str, Any]) -> None:
    """A random model as a training exports it, whose answers differ from image to image."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=len(classes), **model_args)
        with torch.no_grad():
            model.head.weight.mul_(50)
    folder.mkdir(parents=True)
    save_file(
        {name: value.contiguous() for name, value in model.state_dict().items()},
        folder / "model.safetensors",
    )
    config = {
        "architecture": "vit_tiny_patch16_224",
        "model_args": model_args,
        "num_classes": len(classes),
        "classes": classes,
    }
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def suite() -> Path:
    """The suite of real images."""
    given = os.environ.get("DENSECL_SUITE")
    if not given:
        pytest.skip("DENSECL_SUITE is unset: it names the folder of the real image suite")
    return Path(given)


@pytest.fixture
def browser() -> Iterator[Browser]:
    """One for each test that looks at a page: while it runs, its thread has a running event
    loop.
    """
    if not CHROMIUM:
        pytest.skip("no chromium, chromium-browser or google-chrome on the PATH: no page is opened")
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM) as running,
    ):
        yield running
