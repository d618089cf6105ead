"""Shares of objects in patches, and attention maps on another grid."""

import numpy as np
import torch

from densecl.evaluation.stimuli.saliency import compute_attention_map, compute_object_shares
from densecl.network.attention import compute_cls_attention
from densecl.network.preprocessing import normalise_images
from tests.evaluation.probes.memory_context import create_context, create_images

MASKS = torch.randint(0, 3, (5, 12, 16), generator=torch.Generator().manual_seed(0)).byte()


def test_share_of_the_object_in_each_patch():
    """Objects are 1 in masks of objects; in indices of classes, all but background and ignored."""
    masks = torch.where(MASKS == 2, 255, MASKS).byte()
    masks[0, 0, 0] = 7  # a class; no value of an object's mask
    for holds_objects in (True, False):
        shares = compute_object_shares(masks, holds_objects, (3, 2))
        for image, row, column in np.ndindex(5, 3, 2):
            patch = masks[image, row * 4 : row * 4 + 4, column * 8 : column * 8 + 8]
            pixels = [
                value == 1 if holds_objects else value not in (0, 255)
                for value in patch.flatten().tolist()
            ]
            torch.testing.assert_close(
                shares[image, row * 2 + column], torch.tensor(np.mean(pixels)).float()
            )


def test_the_map_is_the_mean_over_the_heads():
    context = create_context(count=6)
    images = create_images(6)
    maps = compute_attention_map(context.model, context.preprocessing, images, (4, 4))
    attention = compute_cls_attention(
        context.model, normalise_images(images, context.preprocessing)
    )
    torch.testing.assert_close(maps, (attention[:, 0] + attention[:, 1]) / 2)


def test_a_map_of_images_of_another_size_on_another_grid_lies_on_the_same_places():
    """A model that sees 32 px, of images of 64 px, for a model of 2 x 2 or 8 x 8 patches."""
    context = create_context(count=6)
    images = create_images(6, side=64)
    coarse = compute_attention_map(context.model, context.preprocessing, images, (2, 2))
    fine = compute_attention_map(context.model, context.preprocessing, images, (8, 8))
    middle = compute_attention_map(context.model, context.preprocessing, images, (4, 4))
    assert coarse.shape == (6, 4)
    assert fine.shape == (6, 64)
    halves = middle.view(6, 2, 2, 2, 2).mean((2, 4)).flatten(1)
    assert torch.corrcoef(torch.stack([coarse.flatten(), halves.flatten()]))[0, 1] > 0.9
    torch.testing.assert_close(fine.mean(1), middle.mean(1), rtol=0.1, atol=0)
