"""Random erasing: what is painted over, how much of it, and that it depends on the image alone."""

import numpy as np
import torch

from densecl.artifacts import Preprocessing
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.erasing import draw_rectangles, erase_rectangles

SIZE = (48, 64)  # height, width
PREPROCESSING = Preprocessing(
    rule="model",
    input_size=(3, *SIZE),
    mean=(0.5, 0.25, 0.75),
    std=(0.5, 0.5, 0.5),
    interpolation="bicubic",
    crop_pct=0.9,
    crop_mode="center",
    exif="ignore",
)
MEAN = torch.tensor([128, 64, 191], dtype=torch.uint8)


def make_batch(images: int) -> ViewBatch:
    views = torch.randint(0, 50, (2, images, 3, *SIZE), dtype=torch.uint8)
    rows, geometry = torch.arange(images), torch.zeros(images, 5)
    return ViewBatch(views[0], views[1], rows, rows, geometry, geometry)


def test_a_rectangle_is_the_mean_colour_and_all_else_stays():
    batch = make_batch(2)
    nothing, everything = [0, 0, 0, 0], [0, 0, *SIZE]
    view1 = [[nothing, nothing], [[3, 5, 10, 30], [8, 20, 12, 40]]]  # two that overlap
    view2 = [[nothing, [40, 60, *SIZE]], [everything, everything]]
    rectangles = torch.tensor([view1, view2])
    erased = erase_rectangles(batch, rectangles, PREPROCESSING)
    expected1, expected2 = batch.view1.clone(), batch.view2.clone()
    expected1[1, :, 3:10, 5:30] = MEAN[:, None, None]
    expected1[1, :, 8:12, 20:40] = MEAN[:, None, None]
    expected2[0, :, 40:, 60:] = MEAN[:, None, None]
    expected2[1] = MEAN[:, None, None]
    assert torch.equal(erased.view1, expected1)
    assert torch.equal(erased.view2, expected2)


def test_areas_and_ratios_are_those_of_the_paper_and_views_differ():
    rectangles = draw_rectangles(list(map(str, range(4000))), SIZE, 0.25, 1, seed=3, epoch=1)
    top, left, bottom, right = rectangles[:, :, 0].double().unbind(-1)  # [2, images]
    is_erased = bottom > 0
    assert np.allclose(is_erased.double().mean(1), 0.25, atol=0.03)
    assert (is_erased[0] & is_erased[1]).double().mean() < 0.1  # 0.0625: drawn independently
    height, width = (bottom - top)[is_erased], (right - left)[is_erased]
    area = height * width / (SIZE[0] * SIZE[1])
    assert 0.015 < area.min() < 0.03
    assert 0.30 < area.max() < 0.345  # sides are whole px
    ratio = width / height
    assert 0.25 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 4
    assert abs(ratio.log().mean()) < 0.1
    assert bottom.max() <= SIZE[0]
    assert right.max() <= SIZE[1]


def test_a_rectangle_depends_on_seed_epoch_and_image_and_not_on_the_batch():
    whole = draw_rectangles(list(map(str, range(50))), SIZE, 1.0, 1, seed=0, epoch=0)
    part = draw_rectangles(["40", "7"], SIZE, 1.0, 1, seed=0, epoch=0)
    assert torch.equal(part, whole[:, [40, 7]])
    for changed in ({"seed": 1, "epoch": 0}, {"seed": 0, "epoch": 1}):
        assert not torch.equal(draw_rectangles(["40", "7"], SIZE, 1.0, 1, **changed), part)


def test_several_rectangles_begin_with_the_one_and_none_is_drawn_alone():
    names = list(map(str, range(400)))
    one = draw_rectangles(names, SIZE, 0.5, 1, seed=0, epoch=0)
    four = draw_rectangles(names, SIZE, 0.5, 4, seed=0, epoch=0)
    assert torch.equal(four[0, :, :1], one[0])  # of view 2 all numbers are drawn after view 1's
    is_drawn = four[..., 2] > 0  # [2, images, 4]
    assert torch.equal(is_drawn.any(2), is_drawn.all(2))
    assert np.allclose(is_drawn.double().mean(), 0.5, atol=0.06)
    drawn = four[is_drawn.all(2)]
    assert not (drawn[:, 1:] == drawn[:, :1]).all(2).any()
