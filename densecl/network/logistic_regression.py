"""Multinomial logistic regression on frozen features, in chunks: the memory that it needs does not
depend on the number of rows (`estimate_memory`).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Protocol

import torch
from torch import Tensor

L2_PENALTY = 1e-4  # on the squared weights of standardised features
MAX_ITERATIONS = 200

CHUNK_BYTES = 2**29  # of the rows that are computed at once
HISTORY_BYTES = 2**31  # of the steps that L-BFGS remembers
MIN_HISTORY, MAX_HISTORY = 5, 100  # steps; for many classes the minimum may need more bytes
# Vectors of all weights beside that history: the weights, gradients, the direction and the points
# between which the line search looks.
WORKING_VECTORS = 16
# Bounds of the heap over what is in use: freed blocks may not fit the next vector.
VECTOR_HEAP_FACTOR, CHUNK_HEAP_FACTOR = 2, 1.5
FP32_BYTES, FP64_BYTES = 4, 8


class Features(Protocol):
    """Features [B, E]: a tensor, or a file that is read like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def split(self, rows: int, /) -> Iterable[Tensor]: ...


def fit_linear_probe(
    features: Features,
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
    # Every chunk is computed in these two: what is freed and asked for again may not fit, and the
    # heap then depends on the number of threads.
    x_buffer = torch.empty(chunk_rows, dim, dtype=torch.float64, device=labels.device)
    logits_buffer = x_buffer.new_empty(chunk_rows, classes)
    mean, std = measure_mean_and_std(features, x_buffer)

    def iter_chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for x, targets in zip(
            iter_in_buffer(features, x_buffer), labels.split(chunk_rows), strict=True
        ):
            yield x.sub_(mean).div_(std), targets

    weight, bias = mean.new_zeros(classes, dim), mean.new_zeros(classes)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=max_iterations,
        history_size=count_history_steps(dim, classes),
        tolerance_grad=1e-7,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        loss = L2_PENALTY * weight.square().sum()
        weight_gradient, bias_gradient = 2 * L2_PENALTY * weight, torch.zeros_like(bias)
        for x, targets in iter_chunks():
            logits = torch.addmm(bias, x, weight.T, out=logits_buffer[: len(x)])
            part, residuals = compute_cross_entropy(logits, targets)
            loss += part / rows
            weight_gradient.addmm_(residuals.T, x, alpha=1 / rows)
            bias_gradient.add_(residuals.sum(0), alpha=1 / rows)
        weight.grad, bias.grad = weight_gradient, bias_gradient
        return float(loss)

    optimizer.step(closure)
    scaled_weight = weight / std
    return scaled_weight.float(), (bias - scaled_weight @ mean).float()


def compute_cross_entropy(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over the rows, and its gradient with respect to the logits [B, C], which it overwrites.

    Written out and in place: autograd would hold five matrices of this shape at once.
    """
    index = targets[:, None]
    logits.sub_(logits.amax(1, keepdim=True))
    correct = logits.gather(1, index)
    sums = logits.exp_().sum(1, keepdim=True)
    loss = (sums.log() - correct).sum()
    probabilities = logits.div_(sums)
    return loss, probabilities.scatter_add_(1, index, probabilities.new_full(index.shape, -1))


def iter_in_buffer(features: Features, buffer: Tensor) -> Iterator[Tensor]:
    """Features [B, E] in fp64, R rows at a time, each chunk in the place of the last."""
    for chunk in features.split(len(buffer)):
        yield buffer[: len(chunk)].copy_(chunk)


def measure_mean_and_std(features: Features, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [E] of features [B, E] in fp64; the latter at least 1e-6."""
    rows, dim = features.shape
    mean, squares = buffer.new_zeros(dim), buffer.new_zeros(dim)
    for x in iter_in_buffer(features, buffer):
        mean += x.sum(0) / rows
    for x in iter_in_buffer(features, buffer):
        squares += x.sub_(mean).square_().sum(0)
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
    """Upper bound of the bytes that `fit_linear_probe` of features in a file adds to a process."""
    history = 2 * min(max_iterations, count_history_steps(dim, classes))
    vectors = FP64_BYTES * classes * (dim + 1) * (history + WORKING_VECTORS)
    chunk = count_chunk_rows(rows, dim, classes) * _count_row_bytes(dim, classes)
    return int(VECTOR_HEAP_FACTOR * vectors + CHUNK_HEAP_FACTOR * chunk)


def _count_row_bytes(dim: int, classes: int) -> int:
    """Bytes of a row in a chunk: features as read and those read before, in fp32; standardised
    features and logits in fp64.
    """
    return 2 * FP32_BYTES * dim + FP64_BYTES * (dim + classes)
