"""The two views: drawn from (seed, epoch, image) alone, within the stated ranges."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from densecl.config.params import ColorJitterParams, DataParams, ViewParams
from densecl.datasets.views.batch import stack_images
from densecl.datasets.views.crops import draw_crop
from densecl.datasets.views.two_views import TwoViewDataset, augment_view, create_epoch_loader
from densecl.errors import DataError
from tests.conftest import draw_set

PLAIN = ColorJitterParams(brightness=0, contrast=0, saturation=0, hue=0)


def views(root: Path, data: DataParams, seed: int = 0) -> TwoViewDataset:
    paths = [p.relative_to(root).as_posix() for p in sorted(root.glob("*/*"))]
    frame = pd.DataFrame(
        {"path": paths, "label": 0, "image_id": [f"imagenet-train/{p}" for p in paths]}
    )
    return TwoViewDataset(frame, root, data, (16, 16), seed)


def test_same_views_whatever_the_workers_and_the_company(tmp_path):
    dataset = views(draw_set(tmp_path / "set", 4), DataParams())
    alone, helped = (list(create_epoch_loader(dataset, 3, 4, 3, workers)) for workers in (0, 2))
    for a, b in zip(alone, helped, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    row = int(alone[0].image_ids[0])
    images = stack_images(dataset[3, row] for row in alone[0].image_ids.tolist())
    assert all(torch.equal(x, y) for x, y in zip(images, alone[0], strict=True))
    assert not torch.equal(dataset[4, row].view1, alone[0].view1[0])


def test_a_cache_changes_no_view(tmp_path):
    root = draw_set(tmp_path / "set", 4)
    plain, held = views(root, DataParams()), views(root, DataParams(cache="ram"))
    expected = [plain[1, row] for row in range(4)]
    for path in root.glob("*/*"):
        path.unlink()
    with pytest.raises(DataError):
        plain[0, 0]
    batches = stack_images(expected), stack_images(held[1, row] for row in range(4))
    assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_the_order_is_a_new_permutation_each_epoch(tmp_path):
    dataset = views(draw_set(tmp_path / "set", 4), DataParams())
    orders = [
        torch.cat([b.image_ids for b in create_epoch_loader(dataset, e, 4, 3, 0)]).tolist()
        for e in (0, 1)
    ]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("scale", "ratio"),
    [((0.08, 1.0), (3 / 4, 4 / 3)), ((0.2, 1.0), (3 / 4, 4 / 3)), ((0.5, 0.5), (1.0, 1.0))],
)
def test_crops_stay_within_the_image_and_the_ranges(scale, ratio):
    rng, shares = np.random.default_rng(0), []
    for _ in range(500):
        top, left, height, width = draw_crop(120, 80, ViewParams(scale=scale, ratio=ratio), rng)
        assert 0 <= top <= 80 - height
        assert 0 <= left <= 120 - width
        assert ratio[0] * 0.93 <= width / height <= ratio[1] * 1.07  # whole pixels
        shares.append(width * height / 9600)
    assert scale[0] * 0.9 <= min(shares)
    assert max(shares) <= scale[1] * 1.05
    assert max(shares) - min(shares) >= 0.8 * (scale[1] - scale[0]) - 0.2


def test_geometry_says_where_the_pixels_came_from():
    across, down = np.meshgrid(np.arange(64), np.arange(64))
    image = np.stack([across * 4, down * 4, 0 * down], 2).astype(np.uint8)
    data = DataParams(color_jitter=PLAIN, view1=ViewParams(scale=(0.3, 0.6)))
    for seed in range(20):
        rng = np.random.default_rng(seed)
        view, where, _ = augment_view(
            image, data.view1, draw_crop(64, 64, data.view1, rng), data, (32, 32), rng
        )
        u = (np.arange(32) + 0.5) / 32
        x = where.left + where.width * (1 - u if where.flipped else u)
        y = where.top + where.height * u
        assert (
            np.abs(view[0, 16].numpy() - (x * 64 - 0.5) * 4)[2:-2].max() < 6
        )  # a pixel is 4 levels
        assert np.abs(view[1, :, 16].numpy() - (y * 64 - 0.5) * 4)[2:-2].max() < 6


def test_flips_and_blurs_are_drawn_as_often_and_as_wide_as_stated():
    image, data, draws = np.zeros((224, 224, 3), np.uint8), DataParams(color_jitter=PLAIN), 1500
    drawn = [
        augment_view(
            image, data.view2, (0, 0, 224, 224), data, (224, 224), np.random.default_rng(seed)
        )
        for seed in range(draws)
    ]
    sigmas = [view.color_change.sigma for view in drawn if view.color_change.sigma]
    assert abs(sum(view.geometry.flipped for view in drawn) / draws - 0.5) < 0.05
    assert abs(len(sigmas) / draws - 0.2) < 0.04
    assert 0.1 <= min(sigmas) < 0.2
    assert 1.9 < max(sigmas) <= 2.0


def test_only_the_second_view_is_blurred():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = {"scale": (1.0, 1.0), "ratio": (1.0, 1.0)}
    data = DataParams(
        color_jitter=PLAIN,
        view1=ViewParams(**whole),
        view2=ViewParams(**whole, blur=1.0),
        blur_sigma=(2.0, 2.0),
    )
    first, second = (
        augment_view(noise, v, (0, 0, 64, 64), data, (64, 64), np.random.default_rng(1))[0].float()
        for v in (data.view1, data.view2)
    )
    assert first.diff(dim=2).abs().mean() > 1.2 * second.diff(dim=2).abs().mean()
    assert DataParams().view1.blur == 0
    assert DataParams().view2.blur == 0.2
