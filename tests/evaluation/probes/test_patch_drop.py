"""Ranks, dropping and pasting against loops over images, patches and pixels."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from densecl.evaluation.stimuli.patch_drop import (
    choose_donors,
    drop_patches,
    locate_rectangle,
    paste_rectangle,
    rank_patches,
    select_patches,
)
from tests.evaluation.probes.memory_context import create_images

GENERATOR = torch.Generator().manual_seed(0)
DRAWS = torch.rand(7, 16, generator=GENERATOR, dtype=torch.float64)
SALIENCY = torch.randint(0, 3, (7, 16), generator=GENERATOR).float()  # many ties
SHARES = [0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0]


def test_patches_are_ranked_by_saliency_then_by_the_draws():
    for saliency in (None, SALIENCY, -SALIENCY):
        ranks = rank_patches(saliency, DRAWS)
        for image in range(7):
            values = [0.0] * 16 if saliency is None else saliency[image].tolist()
            keys = [(-values[patch], DRAWS[image, patch].item()) for patch in range(16)]
            expected = sorted(range(16), key=keys.__getitem__)
            assert ranks[image].argsort().tolist() == expected


def test_least_salient_first_is_the_other_way_round_where_nothing_ties():
    saliency = torch.rand(7, 16, generator=GENERATOR)
    assert torch.equal(rank_patches(-saliency, DRAWS), 15 - rank_patches(saliency, DRAWS))


def test_shares_are_rounded_half_up_and_nested():
    ranks = rank_patches(None, DRAWS)
    counts = [0, 2, 4, 8, 12, 14, 16]  # of 16: 1.6 and 14.4 are rounded
    selected = [select_patches(ranks, share) for share in SHARES]
    for dropped, count in zip(selected, counts, strict=True):
        assert dropped.sum(1).tolist() == [count] * 7
    for smaller, larger in pairwise(selected):
        assert (larger | ~smaller).all()
    ranks = rank_patches(None, DRAWS[:, :10])
    assert select_patches(ranks, 0.25).sum(1).tolist() == [3] * 7  # of 2.5: not to even


@pytest.mark.parametrize(("grid", "size"), [((4, 4), (32, 32)), ((2, 8), (16, 32))])
def test_dropped_pixels_are_0_and_the_others_untouched(grid, size):
    images = torch.randn(7, 3, *size, generator=GENERATOR)
    dropped = torch.rand(7, 16, generator=GENERATOR) < 0.4
    result = drop_patches(images, dropped, grid)
    expected = images.numpy().copy()
    height, width = size[0] // grid[0], size[1] // grid[1]
    for image, row, column in np.ndindex(7, *grid):
        if dropped[image, row * grid[1] + column]:
            top, left = row * height, column * width
            expected[image, :, top : top + height, left : left + width] = 0
    np.testing.assert_array_equal(result.numpy(), expected)
    assert (images != 0).all()  # the input is not written to


def test_rectangles_have_their_area_fit_and_are_nested():
    for draws in torch.rand(300, 3, generator=GENERATOR, dtype=torch.float64).tolist():
        covered = np.zeros((48, 48), bool)
        for share in SHARES:
            rows, columns = locate_rectangle(draws, share, 48, 48)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            assert 0 <= rows.start <= rows.stop <= 48
            assert 0 <= columns.start <= columns.stop <= 48
            # Each side is rounded by at most half a pixel.
            assert abs(height * width - share * 48**2) <= (height + width) / 2 + 0.25
            if height:
                assert 1 / 2.2 < height / width < 2.2
            now = np.zeros_like(covered)
            now[rows, columns] = True
            assert now[covered].all()
            covered = now
        assert covered.all()


def test_rectangles_are_everywhere_and_of_both_shapes():
    draws = torch.rand(2000, 3, generator=GENERATOR, dtype=torch.float64).tolist()
    found = [locate_rectangle(numbers, 0.25, 48, 48) for numbers in draws]
    counts = np.zeros((48, 48))
    for rows, columns in found:
        counts[rows, columns] += 1
    assert counts.min() > 0
    np.testing.assert_allclose(counts, counts[::-1, ::-1], atol=120)  # 4 to 5 sigma of 2000
    wide = np.mean([r.stop - r.start < c.stop - c.start for r, c in found])
    assert wide == pytest.approx(0.5, abs=0.06)


def test_the_pasted_rectangle_is_the_donors_at_the_same_place():
    image, donor = create_images(2)
    draws = [0.3, 0.7, 0.2]
    rows, columns = locate_rectangle(draws, 0.25, 32, 32)
    result = paste_rectangle(image, donor, draws, 0.25)
    for y, x in np.ndindex(32, 32):
        is_covered = rows.start <= y < rows.stop and columns.start <= x < columns.stop
        assert torch.equal(result[:, y, x], (donor if is_covered else image)[:, y, x])
    assert torch.equal(paste_rectangle(image, donor, draws, 0.0), image)
    assert torch.equal(paste_rectangle(image, donor, draws, 1.0), donor)


def test_donors_are_of_another_class_and_evenly_drawn():
    labels = torch.tensor([5, 0, 2, 5, 0, 5, 2, 0, 5])
    counts = torch.zeros(9, 9)
    for _ in range(400):
        draws = torch.rand(9, generator=GENERATOR, dtype=torch.float64)
        counts[range(9), choose_donors(labels, draws)] += 1
    others = labels[:, None] != labels
    assert (counts[~others] == 0).all()
    expected = 400 * others / others.sum(1, keepdim=True)
    assert ((counts - expected)[others].abs() < 5 * expected[others].sqrt()).all()


@pytest.mark.parametrize("draw", [0.0, 0.999999])
def test_donors_at_the_ends_of_the_draws(draw):
    labels = torch.tensor([1, 1, 0])
    donors = choose_donors(labels, torch.full((3,), draw, dtype=torch.float64))
    assert donors.tolist() == [2, 2, 0 if draw == 0 else 1]
