"""Draw colour jitter and blur of a view; `transforms` applies them on the CPU, `device_transforms`
on the device that trains.
"""

from typing import NamedTuple

import numpy as np

from densecl.config.params import ColorJitterParams, DataParams, ViewParams
from densecl.datasets.views.crops import draw_uniform

ADJUSTMENTS = ("brightness", "contrast", "saturation", "hue")
NO_ADJUSTMENT = -1  # after the last one
BLUR_KERNEL, BLUR_SIZE = 23, 224  # px, at px: SimCLR's tenth of the image


class ColorChange(NamedTuple):
    """Colour jitter and blur of one view, drawn but not yet applied."""

    steps: tuple[tuple[int, float], ...]  # (index in ADJUSTMENTS, factor), in order of application
    sigma: float  # of the blur, in px of the view; 0: no blur

    def to_row(self) -> list[float]:
        """Nine numbers: the four indices in order, the four factors, sigma."""
        missing = len(ADJUSTMENTS) - len(self.steps)
        steps = (*self.steps, *[(NO_ADJUSTMENT, 0.0)] * missing)
        indices, factors = zip(*steps, strict=True)
        return [*indices, *factors, self.sigma]


def draw_color_change(
    view: ViewParams, data: DataParams, size: tuple[int, int], rng: np.random.Generator
) -> ColorChange:
    """Draw the colour jitter and, with probability `view.blur`, a blur of a view of `size` px."""
    steps = draw_color_jitter(data.color_jitter, rng)
    blurred = rng.random() < view.blur
    scale = size[0] / BLUR_SIZE
    sigma = draw_uniform(*data.blur_sigma, rng) * scale if blurred else 0.0
    return ColorChange(steps, sigma)


def draw_color_jitter(
    jitter: ColorJitterParams, rng: np.random.Generator
) -> tuple[tuple[int, float], ...]:
    """(index in ADJUSTMENTS, factor) in random order with uniform factors (torchvision's
    ColorJitter), without those of strength 0.
    """
    strengths = jitter.brightness, jitter.contrast, jitter.saturation
    steps = [
        (index, draw_uniform(max(0.0, 1 - strength), 1 + strength, rng))
        for index, strength in enumerate(strengths)
        if strength
    ]
    if jitter.hue:
        steps.append((ADJUSTMENTS.index("hue"), draw_uniform(-jitter.hue, jitter.hue, rng)))
    return tuple(steps[position] for position in rng.permutation(len(steps)).tolist())


def get_blur_kernel(height: int) -> int:
    """Side in px, odd, of the blur of a view of that height."""
    return max(3, 2 * round((BLUR_KERNEL * height / BLUR_SIZE - 1) / 2) + 1)
