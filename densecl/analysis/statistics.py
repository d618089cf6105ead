"""Confidence intervals and tests for top-1, differences between modes, and drops from a control.

n images, S seeds, G sources. An outcome is 1.0 where the model was right on the image and 0.0 where
it was wrong. Pure functions without random numbers: p-value, interval and adjusted p-value of a
number come from one distribution, so that they never contradict each other.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from densecl.analysis.sampled_value import Estimate, SampledValue

Outcomes = NDArray[np.float64]  # [n, S]
Sources = NDArray[np.object_]  # [n] names
SEEDS_FOR_MODE = 3  # fewer say nothing about the spread between seeds


@dataclasses.dataclass(frozen=True)
class WeightedOutcomes:
    """A term: `weight` times the mean of `outcomes` [n, S].

    `sources` [n] names the photograph that an image was made from; images of one source are not
    independent, in one term or in several. Without it, each image is a source of its own. `least`
    is the least possible outcome: -1 for differences of two models.
    """

    weight: float
    outcomes: Outcomes
    sources: Sources | None = None
    least: float = 0.0


def sample_weighted_sum(terms: Sequence[WeightedOutcomes]) -> SampledValue:
    """The sum of the terms' weighted means, over the same seeds in all terms."""
    seed_values = np.sum([term.weight * term.outcomes.mean(axis=0) for term in terms], axis=0)
    seeds = seed_values.size
    image_variance, noise = _compute_image_variance(terms)
    return SampledValue(
        value=float(seed_values.mean()),
        seed_variance=float(seed_values.var(ddof=1)) / seeds if seeds >= SEEDS_FOR_MODE else 0.0,
        image_variance=image_variance,
        seeds=seeds,
        images=sum(len(term.outcomes) for term in terms),
        noise=noise,
    )


def sample_difference(
    gaps: Sequence[Outcomes], sources: Sequence[Sources | None] | None = None
) -> SampledValue:
    """Mean over datasets of the paired differences `gaps` of two modes, each [n, S]: first minus
    second on the same images and seeds.

    Images on which only one of two single models is right are counted (McNemar) where the outcomes
    are 0 and 1; other values, such as areas under a curve, have no such counts. Intervals end at -1
    and 1, unless some difference, such as one of relative errors, lies outside.
    """
    sources = [None] * len(gaps) if sources is None else sources
    terms = [
        WeightedOutcomes(1 / len(gaps), gap, names, least=-1.0)
        for gap, names in zip(gaps, sources, strict=True)
    ]
    sampled = sample_weighted_sum(terms)
    if all(np.abs(gap).max() <= 1.0 for gap in gaps):
        sampled = dataclasses.replace(sampled, bounds=(-1.0, 1.0))
    if len(gaps) > 1 or sampled.seeds > 1 or _has_repeated(sources[0]):
        return sampled
    if not np.isin(gaps[0], (-1.0, 0.0, 1.0)).all():
        return sampled
    counts = int((gaps[0] > 0).sum()), int((gaps[0] < 0).sum())
    return dataclasses.replace(sampled, discordant=counts)


def estimate_weighted_sum(terms: Sequence[WeightedOutcomes], confidence: float) -> Estimate:
    """Weighted sum of means with its interval."""
    return sample_weighted_sum(terms).compute_interval(confidence)


def estimate_accuracy(
    outcomes: Outcomes, confidence: float, sources: Sources | None = None
) -> Estimate:
    """Mean of [n, S] in [0, 1]: Wilson interval for one seed, else that of a sampled value."""
    is_single = outcomes.shape[1] == 1 and not _has_repeated(sources)
    if is_single or outcomes.all() or not outcomes.any():
        # Without any error, or any success, no variance can be estimated.
        return compute_wilson_interval(outcomes[:, 0], confidence)
    estimate = estimate_weighted_sum([WeightedOutcomes(1.0, outcomes, sources)], confidence)
    return Estimate(estimate.value, max(0.0, estimate.low), min(1.0, estimate.high))


def estimate_mean(values: Outcomes, confidence: float, sources: Sources | None = None) -> Estimate:
    """Mean of any real values [n, S]; that of `estimate_accuracy` where all of them are 0 or 1."""
    if np.isin(values, (0.0, 1.0)).all():
        return estimate_accuracy(values, confidence, sources)
    return estimate_weighted_sum([WeightedOutcomes(1.0, values, sources)], confidence)


def compute_wilson_interval(outcomes: Outcomes, confidence: float) -> Estimate:
    """Top-1 of one model [n] with Wilson's score interval (Wilson 1927; statsmodels)."""
    from statsmodels.stats.proportion import proportion_confint

    correct, n = int(outcomes.sum()), outcomes.size
    low, high = proportion_confint(correct, n, alpha=1 - confidence, method="wilson")
    return Estimate(correct / n, max(0.0, float(low)), min(1.0, float(high)))


def estimate_independent_difference(first: Estimate, second: Estimate) -> Estimate:
    """Difference of two independent samples from their intervals (Newcombe 1998, method 10: square
    and add).
    """
    value = first.value - second.value
    return Estimate(
        value,
        value - float(np.hypot(first.value - first.low, second.high - second.value)),
        value + float(np.hypot(first.high - first.value, second.value - second.low)),
    )


def _has_repeated(sources: Sources | None) -> bool:
    return sources is not None and bool(pd.Series(sources).duplicated().any())


def _compute_image_variance(terms: Sequence[WeightedOutcomes]) -> tuple[float, float]:
    """Variance of the sum of means over new images, which all seeds share; and the noise.

    The influence of an image is its weighted deviation from its term's mean. Influences are summed
    per source, averaged over seeds, squared and summed. From three seeds on, the noise of single
    predictions is subtracted: it is part of the seeds' variance.
    """
    influences = _sum_by_source(terms)  # [G, S]
    seeds = influences.shape[1]
    source_means = influences.mean(axis=1)
    variance, noise = float((source_means**2).sum()), 0.0
    if seeds >= SEEDS_FOR_MODE:
        squares = ((influences - source_means[:, None]) ** 2).sum()
        noise = float(squares) / (seeds * (seeds - 1))
    extra = sum(_compute_extra_variance(term) for term in terms)
    return max(0.0, variance - noise) + extra, noise


def _sum_by_source(terms: Sequence[WeightedOutcomes]) -> Outcomes:
    """Influences [G, S]: one row per source, over all terms."""
    independent, shared, names = [], [], []
    for term in terms:
        n = len(term.outcomes) + 2
        influences = term.weight / n * (term.outcomes - term.outcomes.mean(axis=0))
        if term.sources is None:
            independent.append(influences)
        else:
            shared.append(influences)
            names.append(term.sources)
    if shared:
        group, unique = pd.factorize(np.concatenate(names))
        sums = np.zeros((len(unique), terms[0].outcomes.shape[1]))
        np.add.at(sums, group, np.concatenate(shared))
        independent.append(sums)
    return np.concatenate(independent)


def _compute_extra_variance(term: WeightedOutcomes) -> float:
    """The part of two pseudo-images, one of the least and one of the greatest outcome.

    With few discordant images the plain variance is too small, and 0 with none. One more image for
    either side keeps the coverage (Agresti & Min 2005; Bonett & Price 2012).
    """
    n, mean = len(term.outcomes) + 2, float(term.outcomes.mean())
    return (term.weight / n) ** 2 * ((1.0 - mean) ** 2 + (term.least - mean) ** 2)
