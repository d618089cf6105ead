"""The row of an epoch in history.csv, and what in it should alarm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from densecl.contrast.infonce import InfoNCEOutput
from densecl.training.diagnostics.gradient_alignment import GradientAlignment
from densecl.training.step import StepMetrics

MIN_FEATURE_RANK = 2.0  # effective rank of CLS features under which they are called collapsed
# mean cosine of CLS features of different images above which they are: rank does not see how little
# differs
MAX_FEATURE_COSINE = 0.99
MIN_LOSS_GAIN = (
    0.01  # share of its chance level by which a contrastive loss must fall to be called learning
)


def compute_epoch_means(step_metrics: Sequence[StepMetrics], contrastive: bool) -> dict[str, float]:
    """Means over the steps of an epoch, by the names of history.csv; of what was not looked at in a
    step, over the others.
    """

    def mean_over_steps(select: Callable[[StepMetrics], Tensor]) -> float:
        return float(torch.stack([select(o).float() for o in step_metrics]).nanmean())

    row = {
        "loss": mean_over_steps(lambda o: o.loss),
        "classification_loss": mean_over_steps(lambda o: o.classification_loss),
        "train_top1": mean_over_steps(lambda o: o.top1),
        "train_top5": mean_over_steps(lambda o: o.top5),
        "gradient_norm": mean_over_steps(lambda o: o.gradient_norm),
    }
    if contrastive:
        row |= {
            "contrastive_loss": mean_over_steps(lambda o: o.contrast.loss),
            "contrastive_chance": mean_over_steps(lambda o: o.contrast.chance),
            "positive_similarity": mean_over_steps(lambda o: o.contrast.positive_similarity),
            "negative_similarity": mean_over_steps(lambda o: o.contrast.negative_similarity),
            "pretext_top1": mean_over_steps(lambda o: o.contrast.pretext_top1),
            "gradient_classification": mean_over_steps(lambda o: o.conflict.classification),
            "gradient_contrast": mean_over_steps(lambda o: o.conflict.contrast),
            "gradient_cosine": mean_over_steps(lambda o: o.conflict.cosine),
        }
    return row


def find_training_warnings(row: dict[str, float]) -> list[str]:
    """Sentences on what has gone wrong: collapsed features, or a contrastive loss that has learned
    nothing.
    """
    messages = []
    if row["rank_cls"] < MIN_FEATURE_RANK or row["similarity_cls"] > MAX_FEATURE_COSINE:
        messages.append(
            f"features have collapsed: CLS features of different images have an effective rank of "
            f"{row['rank_cls']:.2f} "
            f"(alarm under {MIN_FEATURE_RANK:g}) and a mean cosine of {row['similarity_cls']:.4f} "
            f"(alarm above {MAX_FEATURE_COSINE:g}); "
            "raise contrast.queue_size or contrast.temperature, or lower contrast.lambda_weight"
        )
    loss, chance = row.get("contrastive_loss", math.nan), row.get("contrastive_chance", math.nan)
    if chance > 0 and loss >= (1 - MIN_LOSS_GAIN) * chance:
        messages.append(
            f"the contrastive loss is {loss:.3f} and guessing gives {chance:.3f}: nothing was "
            f"learned from pairs; "
            "lower contrast.temperature, or raise train.learning_rate or contrast.lambda_weight"
        )
    return messages


def pack(outcomes: Sequence[StepMetrics]) -> dict[str, Tensor]:
    """Each figure of an epoch's steps so far as one tensor [steps], by its name; `unpack` gives the
    steps back.
    """
    columns: dict[str, list[Tensor]] = {}
    for outcome in outcomes:
        for name, value in _leaves(outcome, ""):
            columns.setdefault(name, []).append(value)
    return {name: torch.stack(values).cpu() for name, values in columns.items()}


def unpack(columns: dict[str, Tensor]) -> list[StepMetrics]:
    """The steps that `pack` took apart."""
    steps = len(next(iter(columns.values()))) if columns else 0
    return [
        _outcome({name: values[step] for name, values in columns.items()}) for step in range(steps)
    ]


def _leaves(of: tuple[Any, ...], prefix: str) -> Iterator[tuple[str, Tensor]]:
    for name, value in of._asdict().items():  # type: ignore[attr-defined]
        if isinstance(value, tuple):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _outcome(values: dict[str, Tensor]) -> StepMetrics:
    def part(kind: type[Any], prefix: str) -> Any:
        return kind(**{name: values[prefix + name] for name in kind._fields})

    contrast, pull = part(InfoNCEOutput, "contrast."), part(GradientAlignment, "conflict.")
    own = {name: values[name] for name in StepMetrics._fields if name in values}
    return StepMetrics(**own, contrast=contrast, conflict=pull)
