"""Shared fixtures: small image sets in the official layouts, and the suite of real images where it is given."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)  # tensors here are tiny: threads only wait for each other

WNIDS = ("n10000001", "n10000002", "n10000003")


def draw_set(root: Path, per_class: int, size: int = 32, seed: int = 0, folders: tuple[str, ...] = WNIDS) -> Path:
    """A folder a class; each class its own hue, so that a model can learn them."""
    rng = np.random.default_rng(seed)
    for label, folder in enumerate(folders):
        (root / folder).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 90, (size, size, 3))
            pixels[..., label % 3] += 150
            pixels[: size // 2, :, (label // 3 + 1) % 3] += 60
            Image.fromarray(pixels.astype(np.uint8)).save(root / folder / f"image_{seed}_{number}.JPEG")
    return root


@pytest.fixture
def suite() -> Path:
    """The suite of real images."""
    given = os.environ.get("DENSECL_SUITE")
    if not given:
        pytest.skip("DENSECL_SUITE is unset: it names the folder of the real image suite")
    return Path(given)
