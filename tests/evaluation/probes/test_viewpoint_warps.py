"""Warps against torchvision's functional, Pillow and numpy, one image at a time."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import RandomPerspective, functional

from densecl.evaluation.stimuli.viewpoint_warps import (
    DRAWS,
    WARPS,
    change_perspective,
    compute_perspective,
    rotate,
    shrink,
    translate,
)
from tests.evaluation.probes.memory_context import create_images

FILL = (123.7, 116.3, 103.5)
COLOUR = torch.tensor([124, 116, 104], dtype=torch.uint8)
IMAGES = create_images(12, side=30)
DRAWN = torch.rand(12, DRAWS, generator=torch.Generator().manual_seed(1))
BILINEAR = InterpolationMode.BILINEAR


@pytest.mark.parametrize("warp", WARPS)
def test_strength_0_leaves_every_pixel(warp):
    before = IMAGES.clone()
    torch.testing.assert_close(WARPS[warp](IMAGES, DRAWN, 0.0, FILL), before, rtol=0, atol=0)
    WARPS[warp](IMAGES, DRAWN, 0.3, FILL)
    torch.testing.assert_close(IMAGES, before, rtol=0, atol=0)  # nor is the input written to


@pytest.mark.parametrize(("warp", "strength"), [*dict.fromkeys(WARPS, 0.3).items()])
def test_batch_size_does_not_matter(warp, strength):
    alone = [
        WARPS[warp](image[None], draws[None], strength, FILL)
        for image, draws in zip(IMAGES, DRAWN, strict=True)
    ]
    together = WARPS[warp](IMAGES, DRAWN, strength, FILL)
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=0)


def test_rotation_is_torchvisions_either_way():
    for image, draws, result in zip(IMAGES, DRAWN, rotate(IMAGES, DRAWN, 30.0, FILL), strict=True):
        angle = 30.0 if draws[0] < 0.5 else -30.0
        expected = functional.rotate(image, angle, BILINEAR, fill=list(FILL))
        torch.testing.assert_close(result, expected, rtol=0, atol=0)
    assert {bool(draws[0] < 0.5) for draws in DRAWN} == {True, False}


def test_rotation_by_a_right_angle_is_exact():
    for image, draws, result in zip(IMAGES, DRAWN, rotate(IMAGES, DRAWN, 90.0, FILL), strict=True):
        expected = torch.rot90(image, 1 if draws[0] < 0.5 else 3, (1, 2))
        assert (result.int() - expected.int()).abs().max() <= 1


def test_rotation_is_pillows_within_rounding():
    """Pillow rounds each product of its interpolation, and fills by whole pixels."""
    draws = torch.zeros(12, DRAWS)
    result = rotate(IMAGES, draws, 20.0, FILL)[..., 8:22, 8:22].int()
    for image, warped in zip(IMAGES, result, strict=True):
        photo = Image.fromarray(image.permute(1, 2, 0).numpy())
        turned = np.array(photo.rotate(20.0, Image.Resampling.BILINEAR))[8:22, 8:22]
        assert (warped.permute(1, 2, 0) - torch.tensor(turned).int()).abs().max() <= 1


def test_shrinking_is_torchvisions_resize_in_the_middle_of_the_mean():
    for share, size, start in ((0.2, 24, 3), (0.35, 20, 5), (0.5, 15, 7)):
        result = shrink(IMAGES, DRAWN, share, FILL)
        small = functional.resize(IMAGES, [size, size], BILINEAR, antialias=True)
        part = slice(start, start + size)
        torch.testing.assert_close(result[..., part, part], small, rtol=0, atol=0)
        outside = torch.ones(30, 30, dtype=torch.bool)
        outside[part, part] = False
        assert (result[:, :, outside] == COLOUR[:, None]).all()


def test_translation_is_a_shift_by_whole_pixels_in_one_of_four_directions():
    moves = ((0, -6), (0, 6), (-6, 0), (6, 0))
    result = translate(IMAGES, DRAWN, 0.2, FILL)
    for image, draws, shifted in zip(IMAGES, DRAWN, result, strict=True):
        down, right = moves[int(draws[0] * 4)]
        for y, x in np.ndindex(30, 30):
            is_inside = 0 <= y - down < 30 and 0 <= x - right < 30
            expected = image[:, y - down, x - right] if is_inside else COLOUR
            assert (shifted[:, y, x] == expected).all()
    assert {int(draws[0] * 4) for draws in DRAWN} == {0, 1, 2, 3}


def test_translation_is_torchvisions_affine():
    draws = torch.full((12, DRAWS), 0.3)  # to the right
    expected = functional.affine(IMAGES, 0.0, [6, 0], 1.0, [0.0, 0.0], BILINEAR, fill=list(FILL))
    torch.testing.assert_close(translate(IMAGES, draws, 0.2, FILL), expected, rtol=0, atol=0)


def test_perspective_is_torchvisions_for_the_moved_corners():
    result = change_perspective(IMAGES, DRAWN, 0.4, FILL)
    largest = int(0.4 * 15)
    start = [[0, 0], [29, 0], [29, 29], [0, 29]]
    for image, draws, warped in zip(IMAGES, DRAWN, result, strict=True):
        moves = [[int(u * (largest + 1)) for u in pair] for pair in draws.view(4, 2).tolist()]
        end = [
            [x + move[0] * (1 if x == 0 else -1), y + move[1] * (1 if y == 0 else -1)]
            for (x, y), move in zip(start, moves, strict=True)
        ]
        expected = functional.perspective(image, start, end, BILINEAR, fill=list(FILL))
        assert (warped.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize(
    ("end", "draws"),
    [
        # Of its range of whole pixels, the largest: corners at the left and the top move.
        (lambda low, high: high - 1, [0.99, 0.99, 0, 0.99, 0, 0, 0.99, 0]),
        (lambda low, high: low, [0, 0, 0.99, 0, 0.99, 0.99, 0, 0.99]),
    ],
)
def test_perspective_moves_corners_as_far_as_torchvisions_random_one(monkeypatch, end, draws):
    with monkeypatch.context() as patch:
        patch.setattr(torch, "randint", lambda low, high, size: torch.tensor(end(low, high)))
        expected = RandomPerspective(0.4).make_params([IMAGES[0]])["coefficients"]
    result = compute_perspective(torch.tensor([draws]), 0.4, 30, 30)[0]
    torch.testing.assert_close(result, torch.tensor(expected), rtol=1e-5, atol=1e-6)
