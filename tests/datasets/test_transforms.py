"""Crop, jitter and blur beside torchvision's, with the same parameters."""

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as F
from PIL import Image
from torch.nn.functional import interpolate

from densecl.config.params import ColorJitterParams, DataParams
from densecl.datasets.synthetic.photographs import PHOTO, render_photograph
from densecl.datasets.views import transforms
from densecl.datasets.views.color_change import (
    ADJUSTMENTS,
    ColorChange,
    draw_color_change,
    draw_color_jitter,
)
from densecl.datasets.views.crops import draw_uniform

LEVEL = 1.0  # of 255, mean over an image


def pictures(size: int) -> list[np.ndarray]:
    """Drawn photographs, a grey ramp, and noise, in which every value occurs beside every other."""
    rng = np.random.default_rng(0)
    drawn = [np.array(render_photograph(kind, PHOTO, size, rng)[0]) for kind in range(4)]
    ramp = np.repeat(np.linspace(0, 255, size).astype(np.uint8)[None, :, None], size, 0).repeat(
        3, 2
    )
    return [*drawn, ramp, rng.integers(0, 256, (size, size, 3), dtype=np.uint8)]


def difference(ours: np.ndarray, theirs: torch.Tensor) -> float:
    return float(np.abs(ours.astype(int) - theirs.permute(1, 2, 0).numpy().astype(int)).mean())


def planes(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous()


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_each_adjustment_is_torchvisions(name):
    ours, theirs = getattr(transforms, f"adjust_{name}"), getattr(F, f"adjust_{name}")
    for factor in (
        (-0.5, -0.1, -0.03, 0.0, 0.07, 0.5) if name == "hue" else (0.0, 0.6, 0.93, 1.0, 1.4, 2.5)
    ):
        for pixels in pictures(48):
            # In floats: on uint8, torchvision cuts the grey level to whole numbers before it blends.
            expected = (theirs(planes(pixels) / 255, factor) * 255 + 1e-3).to(torch.uint8)
            assert difference(ours(pixels, factor), expected) <= LEVEL, factor


def test_a_strength_of_zero_changes_nothing():
    plain = DataParams(
        color_jitter=ColorJitterParams(brightness=0, contrast=0, saturation=0, hue=0)
    )
    change = draw_color_change(plain.view1, plain, (32, 32), np.random.default_rng(0))
    assert change == ((), 0.0)
    for pixels in pictures(32):
        assert np.array_equal(transforms.apply_color_change(pixels, change), pixels)


def test_jitter_draws_all_four_within_their_ranges():
    jitter = ColorJitterParams(brightness=0.4, contrast=0.3, saturation=1.2, hue=0.1)
    drawn = [draw_color_jitter(jitter, np.random.default_rng(seed)) for seed in range(300)]
    for name, low, high in [
        ("brightness", 0.6, 1.4),
        ("contrast", 0.7, 1.3),
        ("saturation", 0, 2.2),
        ("hue", -0.1, 0.1),
    ]:
        factors = [f for steps in drawn for index, f in steps if ADJUSTMENTS[index] == name]
        assert len(factors) == 300
        assert low <= min(factors) <= low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) <= max(factors) <= high
    assert {steps[0][0] for steps in drawn} == {0, 1, 2, 3}


def test_a_change_is_its_adjustments_in_order_and_then_its_blur():
    pixels = pictures(48)[0]
    expected = transforms.adjust_hue(pixels, 0.1)
    expected = transforms.adjust_contrast(expected, 0.7)
    expected = transforms.adjust_saturation(expected, 1.3)
    expected = transforms.apply_gaussian_blur(transforms.adjust_brightness(expected, 1.2), 5, 0.4)
    change = ColorChange(((3, 0.1), (1, 0.7), (2, 1.3), (0, 1.2)), 0.4)
    assert np.array_equal(transforms.apply_color_change(pixels, change), expected)


@pytest.mark.parametrize("sigma", [0.1, 0.6, 1.3, 2.0])
def test_blur_is_torchvisions(sigma):
    for pixels in pictures(64):
        assert (
            difference(
                transforms.apply_gaussian_blur(pixels, 23, sigma),
                F.gaussian_blur(planes(pixels), [23, 23], [sigma] * 2),
            )
            <= LEVEL
        )


def test_uniform_numbers_are_numpys():
    ours, numpys = np.random.default_rng(0), np.random.default_rng(0)
    for low, high in ((0.2, 1.0), (-0.1, 0.1), (0.6, 1.4), (0.5, 0.5)) * 100:
        assert draw_uniform(low, high, ours) == numpys.uniform(low, high)


@pytest.mark.parametrize("where", [(0, 0, 64, 64), (5, 9, 20, 31), (3, 0, 61, 40), (7, 7, 1, 1)])
@pytest.mark.parametrize("size", [(64, 64), (24, 32)])
def test_resized_crops_are_those_of_contiguous_planes(where, size):
    top, left, height, width = where
    for pixels in pictures(64):
        part = pixels[top : top + height, left : left + width]
        batch = torch.from_numpy(part.transpose(2, 0, 1).copy())[None]
        expected = interpolate(batch, size=size, mode="bilinear", antialias=True)[0]
        assert torch.equal(planes(transforms.resize_crop(pixels, where, size)), expected)


@pytest.mark.parametrize("where", [(0, 0, 64, 64), (5, 9, 20, 31), (3, 0, 61, 40)])
def test_crops_are_pillows(where):
    top, left, height, width = where
    for pixels in pictures(64):
        part = Image.fromarray(pixels).crop((left, top, left + width, top + height))
        reference = np.asarray(part.resize((32, 24), Image.Resampling.BILINEAR))
        ours = transforms.resize_crop(pixels, where, (24, 32))
        assert np.abs(ours.astype(int) - reference.astype(int)).max() <= 1
