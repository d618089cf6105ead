"""What reaches the model."""

import numpy as np
import pytest
import torch
from PIL import Image

from densecl.artifacts import Preprocessing
from densecl.network.preprocessing import (
    build_evaluation_transform,
    normalise_images,
)


@pytest.mark.parametrize(("rule", "size"), [("model", (91, 70)), ("as-is", (64, 64))])
def test_pixels_normalised_in_a_batch_are_timm_s_transform_to_the_bit(rule, size):
    values = Preprocessing(
        rule=rule,
        input_size=(3, 64, 64),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bicubic",
        crop_pct=0.9,
        crop_mode="center",
    )
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(3)]
    pixels = torch.stack(
        [build_evaluation_transform(values, normalize=False)(image) for image in images]
    )
    before = pixels.clone()
    expected = torch.stack([build_evaluation_transform(values)(image) for image in images])
    assert pixels.dtype == torch.uint8
    assert torch.equal(normalise_images(pixels, values), expected)
    assert torch.equal(pixels, before)
    floats = pixels.float()
    assert torch.equal(normalise_images(floats, values), expected)
    assert torch.equal(floats, before.float())
