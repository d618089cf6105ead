"""A linear classifier on frozen CLS features, which lambda = 1 is evaluated with.

The features of all images are in a file and are read in chunks, so the memory that the probe needs
does not depend on their number (`estimate_memory`).
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from densecl.datasets.storage.usable_images import ImageSet
from densecl.network.precision import use_fp32_products
from densecl.network.preprocessing import (
    build_image_loader,
    normalise_images,
    resolve_preprocessing,
)
from densecl.network.vit import Backbone, forward_tokens
from densecl.training.feature_file import BYTES_PER_VALUE, FeatureFile

L2_PENALTY = 1e-4  # on the squared weights of standardised features
MAX_ITERATIONS = 200

CHUNK_BYTES = 2**29  # of the rows that are computed at once
HISTORY_BYTES = 2**31  # of the steps that L-BFGS remembers
MIN_HISTORY, MAX_HISTORY = 5, 100  # steps; for many classes the minimum may need more bytes
# Vectors of all weights beside that history: the weights, gradients, the direction and the points
# between which the line search looks.
WORKING_VECTORS = 16
# Bounds of the heap over what is in use: freed blocks may not fit the next tensor. 2.5 was measured
# where chunks make most of it.
VECTOR_HEAP_FACTOR, CHUNK_HEAP_FACTOR = 2, 3
FP64_BYTES = 8


@use_fp32_products()
def attach_linear_probe(
    model: Backbone, images: ImageSet, classes: int, batch_size: int, file: Path
) -> None:
    """Replace the classifier by a linear probe on the training images' frozen CLS features.

    `file` holds the features meanwhile. Raises TrainingError if they cannot be written.
    """
    device = next(model.parameters()).device
    labels = torch.tensor(images.frame["label"].to_numpy(copy=True), device=device)
    with FeatureFile(file, len(labels), model.embed_dim) as features:
        extract_features(model, images, batch_size, features)
        weight, bias = fit_linear_probe(features, labels, classes)
    model.get_classifier().load_state_dict({"weight": weight, "bias": bias})


@torch.no_grad()
def extract_features(
    model: Backbone, images: ImageSet, batch_size: int, features: FeatureFile
) -> None:
    """Append the CLS features of all images, in the order of the manifest."""
    device = next(model.parameters()).device
    files = [images.root / path for path in images.frame["path"]]
    preprocessing = resolve_preprocessing(model.eval())
    for batch, _ in build_image_loader(files, preprocessing, batch_size):
        normalised = normalise_images(batch.to(device), preprocessing)
        features.append(forward_tokens(model, normalised).cls)


def fit_linear_probe(
    features: Tensor | FeatureFile,
    labels: Tensor,
    classes: int,
    max_iterations: int = MAX_ITERATIONS,
) -> tuple[Tensor, Tensor]:
    """Weight [C, E] and bias [C] of multinomial logistic regression on features [B, E].

    L-BFGS in fp64 on standardised features, on the device of the labels [B]; the result takes
    features as they are. Deterministic; the sums over chunks differ from those over all rows by
    rounding only.
    """
    rows, dim = features.shape
    chunk_rows = count_chunk_rows(rows, dim, classes)
    mean, std = measure_mean_and_std(features, chunk_rows, labels.device)

    def iter_chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk, targets in zip(
            features.split(chunk_rows), labels.split(chunk_rows), strict=True
        ):
            yield chunk.to(labels.device, torch.float64).sub(mean).div_(std), targets

    weight = mean.new_zeros(classes, dim, requires_grad=True)
    bias = mean.new_zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        history_size=count_history_steps(dim, classes),
        tolerance_grad=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        optimizer.zero_grad()
        total = L2_PENALTY * weight.square().sum()
        total.backward()
        loss = total.detach()
        for x, targets in iter_chunks():
            part = F.cross_entropy(F.linear(x, weight, bias), targets, reduction="sum") / rows
            part.backward()
            loss += part.detach()
        return float(loss)

    with torch.enable_grad():
        optimizer.step(closure)
    scaled_weight = weight.detach() / std
    return scaled_weight.float(), (bias.detach() - scaled_weight @ mean).float()


def measure_mean_and_std(
    features: Tensor | FeatureFile, chunk_rows: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [E] of features [B, E] in fp64; the latter at least 1e-6."""
    rows, dim = features.shape
    mean = torch.zeros(dim, dtype=torch.float64, device=device)
    squares = torch.zeros_like(mean)
    for chunk in features.split(chunk_rows):
        mean += chunk.to(device, torch.float64).sum(0) / rows
    for chunk in features.split(chunk_rows):
        squares += chunk.to(device, torch.float64).sub(mean).square_().sum(0)
    return mean, (squares / max(1, rows - 1)).sqrt().clamp_min(1e-6)


def count_chunk_rows(rows: int, dim: int, classes: int) -> int:
    """Rows of E = `dim` features that are computed at once: CHUNK_BYTES at most, or one row.

    Chunks are as equal as possible, so that each fits the blocks that the one before it freed.
    """
    largest = max(1, CHUNK_BYTES // _count_row_bytes(dim, classes))
    return max(1, math.ceil(rows / math.ceil(rows / largest)))


def count_history_steps(dim: int, classes: int) -> int:
    """Steps that L-BFGS remembers, two vectors each: HISTORY_BYTES."""
    steps = HISTORY_BYTES // (2 * FP64_BYTES * classes * (dim + 1))
    return min(MAX_HISTORY, max(MIN_HISTORY, steps))


def estimate_memory(rows: int, dim: int, classes: int, max_iterations: int = MAX_ITERATIONS) -> int:
    """Upper bound of the bytes that `fit_linear_probe` of a FeatureFile adds to a process."""
    history = 2 * min(max_iterations, count_history_steps(dim, classes))
    vectors = FP64_BYTES * classes * (dim + 1) * (history + WORKING_VECTORS)
    chunk = count_chunk_rows(rows, dim, classes) * _count_row_bytes(dim, classes)
    return VECTOR_HEAP_FACTOR * vectors + CHUNK_HEAP_FACTOR * chunk


def _count_row_bytes(dim: int, classes: int) -> int:
    """Bytes of a row in a chunk: features in fp32 and three times in fp64 (read, standardised, the
    chunk before it); logits, their log-softmax and two gradients in fp64.
    """
    return (BYTES_PER_VALUE + 3 * FP64_BYTES) * dim + 4 * FP64_BYTES * classes
