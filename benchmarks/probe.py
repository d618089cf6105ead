"""Memory that fitting the linear probe of lambda = 1 adds, against its stated bound.

`python -m benchmarks.probe ROWS DIM CLASSES ITERATIONS` measures one size; features are noise.
"""

import multiprocessing
import sys
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.network.logistic_regression import estimate_memory, fit_linear_probe
from densecl.runtime.hardware import (
    get_device,
    read_peak_memory,
    reset_peak_memory,
    reuse_freed_memory,
)
from densecl.training.feature_file import FeatureFile

WRITTEN_ROWS = 4096  # at a time


def measure_probe(folder: Path, rows: int, dim: int, classes: int, iterations: int) -> int:
    """Bytes that fitting adds to the peak memory of a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        grown: int = pool.apply(_measure_growth, (folder, rows, dim, classes, iterations))
    return grown


def _measure_growth(folder: Path, rows: int, dim: int, classes: int, iterations: int) -> int:
    reuse_freed_memory()  # as in training
    generator, device = torch.Generator().manual_seed(0), get_device()
    labels = torch.randint(classes, (rows,), generator=generator)
    # The libraries' own buffers are in place before the measurement.
    fit_linear_probe(torch.ones(9, 3, device=device), torch.arange(9, device=device) % 2, 2)
    with FeatureFile(folder / "features", rows, dim) as features:
        for part in labels.split(WRITTEN_ROWS):
            features.append(draw_features(part, dim, generator))
        labels = labels.to(device)
        reset_peak_memory(device)
        before = read_peak_memory(device)
        fit_linear_probe(features, labels, classes, iterations)
        return read_peak_memory(device) - before


def draw_features(labels: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Noise [R, E] in which classes can just be told apart, so that L-BFGS has work to do."""
    return torch.randn(len(labels), dim, generator=generator) + F.one_hot(labels % dim, dim)


def main() -> None:
    rows, dim, classes, iterations = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory(dir=".") as folder:
        measured = measure_probe(Path(folder), rows, dim, classes, iterations)
    estimate = estimate_memory(rows, dim, classes, iterations)
    print(
        f"{rows:,} x {dim} features, {classes:,} classes, {iterations} iterations: measured "
        f"{measured / 1e9:.2f} GB, estimated at most {estimate / 1e9:.2f} GB; all iterations: at "
        f"most {estimate_memory(rows, dim, classes) / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
