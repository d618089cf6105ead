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


def count_bins(before: pd.Series, now: pd.Series) -> BinCounts:
    """Counts per bin; bins are deciles of the earlier sample, or single values for text and for at
    most ten numbers.
    """
    if not pd.api.types.is_numeric_dtype(before) or before.nunique() <= BINS:
        codes, values = pd.factorize(pd.concat([before, now], ignore_index=True))
        bins, count = np.split(codes, [len(before)]), len(values)
    else:
        edges = _compute_edges(before.to_numpy(float))
        bins = [np.searchsorted(edges, side.to_numpy(float), "right") for side in (before, now)]
        count = len(edges) + 1
    return np.bincount(bins[0], minlength=count), np.bincount(bins[1], minlength=count)


def _compute_edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inner edges of the bins, each the smallest value of its bin; a value that fills a decile has
    its own bin.
    """
    tenths = np.sort(values)[np.arange(1, BINS) * len(values) // BINS]
    heavy = tenths[1:][np.diff(tenths) == 0]
    return np.unique(np.concatenate([tenths, np.nextafter(heavy, np.inf)]))
