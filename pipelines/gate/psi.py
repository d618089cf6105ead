"""Population stability index (PSI): how much the distribution of a feature has changed.

PSI = sum over bins of (q - p) log(q / p), p and q the shares of a bin then and now: Jeffreys'
(1946) divergence, called PSI in credit scoring, by whose convention 0.1 and more is a moderate and
0.25 and more a large shift (Siddiqi 2006, Credit Risk Scorecards). Half an image is added to every
bin, then and now, so that none is empty.

For samples of n and m images of one population PSI / (1/n + 1/m) follows about a chi-squared
distribution with bins - 1 degrees of freedom (Yurdakul & Naranjo 2020, Journal of Risk Model
Validation): with many classes and few images it passes 0.25 by chance alone.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from densecl.artifacts import Artifact

Counts = NDArray[np.int64]  # [bins]
BinCounts = tuple[Counts, Counts]  # images a bin, then and now

BINS = 10
MODERATE, LARGE = 0.1, 0.25
SMOOTHING = 0.5  # images added to each bin


def compute_psi(counts: BinCounts) -> float:
    """PSI of two sets of counts; 0 if the distributions are equal. Both sides must have images."""
    p, q = ((bins + SMOOTHING) / (bins.sum() + SMOOTHING * len(bins)) for bins in counts)
    return float(((q - p) * np.log(q / p)).sum())


def compute_chance_psi(counts: BinCounts) -> float:
    """95th percentile of the PSI of two samples of these sizes from one population."""
    from scipy.stats import chi2

    before, now = counts
    degrees = len(before) - 1
    return float(chi2.ppf(0.95, degrees)) * (1 / before.sum() + 1 / now.sum()) if degrees else 0.0


class FeatureHistogram(Artifact):
    """Images per bin of a sample, by the name of the bin: its number between `edges`, or a single
    value.
    """

    edges: tuple[float, ...] | None  # inner ones; None: a bin per value
    counts: dict[str, int]


def build_histogram(sample: pd.Series) -> FeatureHistogram:
    """Bins are deciles of the sample, or single values for text and for at most ten numbers."""
    is_continuous = pd.api.types.is_numeric_dtype(sample) and sample.nunique() > BINS
    edges = tuple(_compute_edges(sample.to_numpy(float)).tolist()) if is_continuous else None
    return FeatureHistogram(edges=edges, counts=_count_by_bin(edges, sample))


def count_bins(before: FeatureHistogram, now: pd.Series) -> BinCounts:
    """Counts per bin of the earlier sample; values that it lacks have bins of their own."""
    current = _count_by_bin(before.edges, now)
    bins = list(dict.fromkeys((*before.counts, *current)))
    if before.edges is not None:
        bins = [str(number) for number in range(len(before.edges) + 1)]
    first, second = (
        np.array([counts.get(name, 0) for name in bins]) for counts in (before.counts, current)
    )
    return first, second


def _count_by_bin(edges: tuple[float, ...] | None, sample: pd.Series) -> dict[str, int]:
    if edges is not None:
        numbers = np.bincount(np.searchsorted(edges, sample.to_numpy(float), "right"))
        return {str(number): int(count) for number, count in enumerate(numbers)}
    values = sample.astype(float) if pd.api.types.is_numeric_dtype(sample) else sample
    return {str(value): int(count) for value, count in values.value_counts().sort_index().items()}


def _compute_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner edges of the bins, each the smallest value of its bin; a value that fills a decile has
    its own bin.
    """
    tenths = np.sort(values)[np.arange(1, BINS) * len(values) // BINS]
    heavy = tenths[1:][np.diff(tenths) == 0]
    return np.unique(np.concatenate([tenths, np.nextafter(heavy, np.inf)]))
