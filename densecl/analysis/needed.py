"""How many seeds or images it would take to call a difference that was not called."""

import bisect
from dataclasses import replace

from densecl.analysis.sampled_value import POWER, SampledValue
from densecl.analysis.statistics import SEEDS_FOR_MODE

MAX_SEEDS = 50  # more are not sought
MAX_IMAGES_FACTOR = 1000.0


def find_needed_seeds(sampled: SampledValue, confidence: float, tests: int) -> int | None:
    """Smallest number of seeds, up to MAX_SEEDS, at which a difference as large as the one seen is
    called with 80 % power on the same images; None if there is none, or if seeds were too few to
    tell how much they vary.

    With S seeds the variance of their mean is that of one seed / S; that of the images stays. Both
    are taken for the true ones, and so is the difference.
    """
    if sampled.seeds < SEEDS_FOR_MODE:
        return None
    one_seed = sampled.seeds * sampled.seed_variance

    def compute_power(seeds: int) -> float:
        grown = replace(sampled, seeds=seeds, seed_variance=one_seed / seeds)
        return grown.compute_power(abs(sampled.value), confidence, tests)

    candidates = range(sampled.seeds, MAX_SEEDS + 1)
    index = bisect.bisect_left(candidates, POWER, key=compute_power)  # it grows with the seeds
    return candidates[index] if index < len(candidates) else None


def find_images_to_exclude(sampled: SampledValue, confidence: float, fall: float) -> int | None:
    """Fewest images at which the interval of a difference as large as the one seen, between models
    that differ on the same share of images, lies above -fall; None if more than 1000 times as many
    do not suffice.
    """
    if sampled.value <= -fall:
        return None

    def excludes(images: int) -> bool:
        return _grow(sampled, images).compute_limits(1 - confidence)[0] > -fall

    candidates = range(sampled.images, int(MAX_IMAGES_FACTOR * sampled.images) + 1)
    index = bisect.bisect_left(candidates, True, key=excludes)  # the interval shrinks with n
    return candidates[index] if index < len(candidates) else None


def _grow(sampled: SampledValue, images: int) -> SampledValue:
    """The same difference of two single models on another number of images, its counts of
    discordant images as in `sample_difference`.
    """
    factor = images / sampled.images
    if sampled.discordant is None:
        return replace(sampled, images=images, image_variance=sampled.image_variance / factor)
    first, second = (round(factor * count) for count in sampled.discordant)
    variance = (first + second + 2 - (images - 2) * sampled.value**2) / (images + 2) ** 2
    return replace(sampled, images=images, image_variance=variance, discordant=(first, second))


def find_needed_images(sampled: SampledValue, confidence: float, tests: int) -> float | None:
    """How many times the images it takes to call a difference as large as the one seen with 80 %
    power, from the same seeds; None if no number of images does, or more than 1000 times as many.

    With n images the images' variance falls as 1 / n, and so does the part of the seeds' variance
    that is the noise of single answers. The rest of it stays: it is the effect of the seeds.
    """
    from scipy.optimize import brentq

    noise = min(sampled.noise, sampled.seed_variance)

    def compute_excess(factor: float) -> float:
        grown = replace(
            sampled,
            seed_variance=sampled.seed_variance - noise + noise / factor,
            image_variance=sampled.image_variance / factor,
            discordant=None,
        )
        return grown.compute_power(abs(sampled.value), confidence, tests) - POWER

    if compute_excess(MAX_IMAGES_FACTOR) < 0:
        return None
    if compute_excess(1.0) >= 0:
        return 1.0
    return float(brentq(compute_excess, 1.0, MAX_IMAGES_FACTOR, xtol=1e-3))
