"""Predictions over groups of classes. Letters: B images, C classes of the model, G groups."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from densecl.artifacts import ClassGroups
from densecl.metrics import is_topk_correct


@dataclass(frozen=True)
class ScoredGroups:
    """Groups of the classes of one model; the label of a group is its position."""

    groups: ClassGroups
    classes: tuple[str, ...]  # wnids of the model's classes, in index order

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(self.groups.members)

    @cached_property
    def indices(self) -> tuple[list[int], ...]:
        """The model's classes of each group; of a group that it does not know, none."""
        index = {wnid: i for i, wnid in enumerate(self.classes)}
        return tuple(
            sorted(index[wnid] for wnid in wnids if wnid in index)
            for wnids in self.groups.members.values()
        )

    @cached_property
    def label_of_class(self) -> Tensor:
        """int64 [C]: label of the group of each of the model's classes; -1 for those of none."""
        labels = torch.full((len(self.classes),), -1)
        for label, members in enumerate(self.indices):
            labels[members] = label
        return labels

    @property
    def known(self) -> dict[str, int]:
        """Label of each group of which the model knows a class: the scored ones."""
        return {
            name: label
            for label, (name, members) in enumerate(zip(self.names, self.indices, strict=True))
            if members
        }

    def label_wnids(self, wnids: pd.Series) -> pd.Series:
        """int64: label of the group of each wnid; -1 for those of none."""
        members = self.groups.members.values()
        labels = {wnid: label for label, group in enumerate(members) for wnid in group}
        return wnids.map(labels).fillna(-1).astype("int64")

    def compute_chance(self, labels: pd.Series) -> float | None:
        """Mean top-1, over images of these labels, of a model that guesses one of its classes; None
        where classes of no group are masked, so that it guesses one of the groups.
        """
        if self.groups.outside == "masked":
            return None
        sizes = np.array([len(members) for members in self.indices])
        return float(sizes[labels.to_numpy()].mean() / len(self.classes))

    def combine(self, logits: Tensor) -> Tensor:
        """float64 [B, G] of logits [B, C]: mean or largest probability of each group's classes.

        With `outside` = wrong, the probability of each class of no group follows. Each row sums to
        1, so it does not matter over which classes the softmax is; groups that the model does not
        know have 0.
        """
        outside = (self.label_of_class < 0).nonzero()[:, 0]
        competing = logits.double()
        if self.groups.outside == "masked":
            competing = competing.index_fill(1, outside, -torch.inf)
        probabilities = competing.softmax(1)
        values = [_combine(probabilities[:, i], self.groups.combine) for i in self.indices]
        table = torch.stack(values, 1)
        if self.groups.outside == "wrong":
            table = torch.cat([table, probabilities[:, outside]], 1)
        return table / table.sum(1, keepdim=True)


def _combine(probabilities: Tensor, combine: str) -> Tensor:
    """[B] of the probabilities [B, n] of one group's classes."""
    if not probabilities.shape[1]:
        return probabilities.new_zeros(len(probabilities))
    return probabilities.mean(1) if combine == "mean" else probabilities.amax(1)


def score_groups(logits: Tensor, labels: Tensor, groups: ScoredGroups) -> pd.DataFrame:
    """Prediction rows of logits [B, C], as `score_logits`, with labels [B] of groups.

    A prediction is the group with the largest value, the first of equal ones; -1 is a class of no
    group. `_unmasked`: the group of the model's largest logit. Right among five: one of the five
    largest groups, or where `outside` is wrong of the five largest classes.
    """
    values, unmasked = groups.combine(logits), logits.double().softmax(1)
    largest = values.argmax(1)
    prediction = largest.where(largest < len(groups.names), -1)
    prediction_unmasked = groups.label_of_class[logits.argmax(1)]
    # Right if the group's best class is.
    in_group = groups.label_of_class[None] == labels[:, None]
    best_class = logits.masked_fill(~in_group, -torch.inf).argmax(1)
    correct5_unmasked = is_topk_correct(logits, best_class, 5)
    competes = groups.groups.outside == "wrong"
    columns = {
        "label": labels,
        "prediction": prediction,
        "prediction_unmasked": prediction_unmasked,
        "confidence": values.amax(1).float(),
        "confidence_unmasked": unmasked.amax(1).float(),
        "p_true": values.gather(1, labels[:, None])[:, 0].float(),
        "correct": prediction == labels,
        "correct5": correct5_unmasked if competes else is_topk_correct(values, labels, 5),
        "correct_unmasked": prediction_unmasked == labels,
        "correct5_unmasked": correct5_unmasked,
    }
    return pd.DataFrame({name: column.numpy() for name, column in columns.items()})


def match_groups(groups: ClassGroups | None, classes: Sequence[str]) -> ScoredGroups | None:
    """The groups over the classes of a model; None for a dataset whose labels are classes."""
    return ScoredGroups(groups, tuple(classes)) if groups else None
