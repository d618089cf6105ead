"""Metrics of training steps, their means over an epoch, and the warnings that follow from them.

The metrics of a step are scalar tensors without gradient on the model's device, by column of
history.csv. Some are computed in diagnostic steps only.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

StepMetrics = dict[str, Tensor]

LOG_EVERY = 10  # steps between diagnostic steps, which synchronise host and GPU
MIN_FEATURE_RANK = 2.0  # effective rank of CLS features below which they have collapsed
# Mean cosine of CLS features of different images above which they have collapsed: the rank does not
# see how small their differences are.
MAX_FEATURE_COSINE = 0.99
MIN_LOSS_GAIN = 0.01  # share of chance by which a contrastive loss must fall to count as learning


def is_diagnostic_step(index: int, steps_per_epoch: int) -> bool:
    """Whether a step of an epoch also computes diagnostics; the last one does."""
    return index % LOG_EVERY == 0 or index == steps_per_epoch - 1


def stack_steps(steps: Sequence[StepMetrics]) -> dict[str, Tensor]:
    """Each metric as one tensor [steps], in the dtype of the loss; NaN in steps that lack it."""
    if not steps:
        return {}
    like = steps[0]["loss"]
    nan = like.new_full((), torch.nan)
    names = dict.fromkeys(name for step in steps for name in step)
    return {name: torch.stack([step.get(name, nan).to(like) for step in steps]) for name in names}


def split_steps(columns: dict[str, Tensor]) -> list[StepMetrics]:
    """The inverse of `stack_steps`."""
    rows = zip(*(column.unbind() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def average_micro_batches(
    micro_batches: Sequence[StepMetrics], image_shares: Sequence[float]
) -> StepMetrics:
    """Means over the micro-batches of a batch, weighted by their shares of the images.

    A metric that is missing or NaN in some of them is averaged over the others.
    """
    if len(micro_batches) == 1:
        return micro_batches[0]

    def average(column: Tensor) -> Tensor:
        weights = column.new_tensor(image_shares) * ~column.isnan()
        return (column.nan_to_num() * weights).sum() / weights.sum()

    return {name: average(column) for name, column in stack_steps(micro_batches).items()}


def compute_epoch_means(steps: Sequence[StepMetrics]) -> dict[str, float]:
    """Means over the steps of an epoch; diagnostics over the diagnostic steps."""
    return {name: float(column.float().nanmean()) for name, column in stack_steps(steps).items()}


def find_training_warnings(row: dict[str, float]) -> list[str]:
    """Sentences on collapsed features and on a contrastive loss at chance, from an epoch's row."""
    messages = []
    if row["rank_cls"] < MIN_FEATURE_RANK or row["similarity_cls"] > MAX_FEATURE_COSINE:
        messages.append(
            f"features have collapsed: CLS features of different images have an effective rank of "
            f"{row['rank_cls']:.2f} (expected {MIN_FEATURE_RANK:g} or more) and a mean cosine of "
            f"{row['similarity_cls']:.4f} (expected {MAX_FEATURE_COSINE:g} or less); raise "
            "contrast.queue_size or contrast.temperature, or lower contrast.lambda_weight"
        )
    loss, chance = row.get("contrastive_loss", math.nan), row.get("contrastive_chance", math.nan)
    if chance > 0 and loss >= (1 - MIN_LOSS_GAIN) * chance:
        messages.append(
            f"the contrastive loss is {loss:.3f} and a uniform guess gives {chance:.3f}: nothing "
            "was learned from the pairs; lower contrast.temperature, or raise train.learning_rate "
            "or contrast.lambda_weight"
        )
    return messages
