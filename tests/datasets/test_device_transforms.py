"""Colour changes in batches on the device, beside the loader's on the CPU."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision.transforms.v2.functional as F

from densecl.config.params import DataParams
from densecl.datasets.synthetic.photographs import PHOTO, render_photograph
from densecl.datasets.views import device_transforms
from densecl.datasets.views.batch import (
    UncoloredBatch,
    ViewBatch,
    collate_images,
    get_views,
    stack_images,
)
from densecl.datasets.views.color_change import ADJUSTMENTS, ColorChange
from densecl.datasets.views.device_transforms import apply_color_changes, finish_batch
from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader
from tests.conftest import draw_set

CPU = torch.device("cpu")
BLURRED = {
    "view1": {"scale": (0.08, 1.0), "blur": 0.5},
    "view2": {"scale": (0.2, 1.0), "blur": 0.5},
}


def views(root: Path, size: int = 64, **data: object) -> TwoViewDataset:
    paths = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*.*")) if p.is_file()]
    frame = pd.DataFrame({"path": paths, "label": 0, "image_id": paths})
    return TwoViewDataset(frame, root, DataParams.model_validate(data), (size, size), 0)


def load_both(root: Path, size: int = 64, **data: object) -> tuple[ViewBatch, UncoloredBatch]:
    """All images as the loader finishes them, and as it leaves them to the device."""
    finished, unfinished = (views(root, size, augment_on=on, **data) for on in ("cpu", "device"))
    rows = range(len(finished))
    return tuple(stack_images(d[0, row] for row in rows) for d in (finished, unfinished))


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
    """[B] mean absolute difference in levels."""
    return (ours.int() - theirs.int()).abs().float().mean((1, 2, 3))


def check_within_a_level(root: Path, size: int, **data: object) -> None:
    on_cpu, unfinished = load_both(root, size, **data)
    finished = finish_batch(unfinished, CPU)
    assert max(difference(unfinished.batch.view1, on_cpu.view1)) > 10  # something is left to do
    for ours, theirs in zip(finished[:2], on_cpu[:2], strict=True):
        assert max(difference(ours, theirs)) <= 1
        assert abs((ours.float() - theirs.float()).mean()) <= 0.1
    assert all(torch.equal(a, b) for a, b in zip(finished[2:], on_cpu[2:], strict=True))


def test_the_device_gives_the_views_of_the_cpu(tmp_path):
    for number in range(12):
        drawn = render_photograph(number, PHOTO, 128, np.random.default_rng(number))[0]
        drawn.save(tmp_path / f"{number}.jpg", quality=92)
    check_within_a_level(tmp_path, 64, **BLURRED)


@pytest.mark.slow
def test_the_device_gives_the_views_of_the_cpu_on_photographs(suite):
    check_within_a_level(suite / "full", 224, **BLURRED)


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_each_adjustment_is_torchvisions_with_a_factor_per_image(name):
    noise = torch.randint(0, 256, (6, 3, 24, 32), dtype=torch.uint8, generator=rng())
    noise[0] = noise[0, :1]  # a grey one
    factors = (-0.5, -0.1, 0.0, 0.03, 0.2, 0.5) if name == "hue" else (0.0, 0.3, 1.0, 1.2, 1.7, 2.5)
    ours = getattr(device_transforms, f"adjust_{name}")(
        noise, torch.tensor(factors, dtype=torch.float64).view(-1, 1, 1, 1)
    )
    theirs = torch.stack(
        [
            getattr(F, f"adjust_{name}")(image / 255, f) * 255
            for image, f in zip(noise, factors, strict=True)
        ]
    )
    cut = theirs - ours  # to the nearest level, or down; torchvision's grey weights sum to 0.9999
    low, high = (-0.51, 0.51) if name == "hue" else (-0.1, 1.05)
    assert low <= cut.min()
    assert cut.max() <= high


def test_blur_is_torchvisions_with_a_sigma_per_image():
    noise = torch.randint(0, 256, (3, 3, 224, 32), dtype=torch.uint8, generator=rng())
    noise, sigmas = torch.cat([noise, noise.flip(3)], 3), (0.1, 0.8, 2.0)
    ours = device_transforms.blur(
        noise, torch.tensor(sigmas, dtype=torch.float64).view(-1, 1, 1, 1)
    )
    theirs = [
        F.gaussian_blur(x, [23, 23], [sigma] * 2) for x, sigma in zip(noise, sigmas, strict=True)
    ]
    assert max(difference(ours, torch.stack(theirs))) <= 0.1


def test_order_and_factors_belong_to_the_image_and_not_to_the_batch():
    images = torch.randint(0, 256, (3, 3, 24, 24), dtype=torch.uint8, generator=rng())
    changes = [
        ColorChange(((3, 0.1), (0, 1.4), (1, 0.7), (2, 1.3)), 0.7),
        ColorChange((), 0.0),
        ColorChange(((0, 1.4), (3, 0.1)), 0.0),
    ]
    rows = torch.tensor([change.to_row() for change in changes], dtype=torch.float64)
    together = apply_color_changes(images, rows)
    for row in range(3):
        alone = apply_color_changes(images[row : row + 1], rows[row : row + 1])[0]
        assert torch.equal(alone, together[row])
    assert torch.equal(together[1], images[1])
    bright = device_transforms.adjust_brightness(images[2:], torch.tensor([1.4]).view(1, 1, 1, 1))
    turned = device_transforms.adjust_hue(bright, torch.tensor([0.1]).view(1, 1, 1, 1))
    assert torch.equal(together[2], turned[0])


def test_workers_hand_the_changes_over(tmp_path):
    dataset = views(draw_set(tmp_path / "set", 4), augment_on="device", **BLURRED)
    alone, helped = (
        [finish_batch(b, CPU) for b in create_epoch_loader(dataset, 0, 4, 3, n)] for n in (0, 2)
    )
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("augment_on", ["cpu", "device"])
def test_a_worker_shares_every_tensor_before_it_is_sent(tmp_path, monkeypatch, augment_on):
    """Where /dev/shm is full this raises; the thread that sends would only lose the batch."""
    draw_set(tmp_path, 2)
    dataset = views(tmp_path, 16, augment_on=augment_on)
    items = [dataset[0, row] for row in range(2)]
    monkeypatch.setattr("densecl.datasets.views.batch.get_worker_info", object)
    shared, plain = collate_images(items), stack_images(items)
    pairs = [(get_views(shared), get_views(plain))]
    if augment_on == "device":
        pairs.append((shared[1:], plain[1:]))
    for ours, theirs in pairs:
        assert all(tensor.is_shared() for tensor in ours)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
