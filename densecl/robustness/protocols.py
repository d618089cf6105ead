"""Which classes a set is scored over."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

SUBSETS = {"imagenet-a": "imagenet_a_synsets.txt", "imagenet-r": "imagenet_r_synsets.txt"}


def scored_classes(dataset: str, frame: pd.DataFrame, classes: list[str]) -> list[int]:
    """Sorted indices into the training classes; logits of all others are masked.

    The published lists (timm's data files) where the model knows the 1000 ImageNet classes, else the set's own classes.
    """
    if dataset in SUBSETS and classes == sorted(_timm_list("imagenet_synsets.txt")):
        return sorted(classes.index(wnid) for wnid in _timm_list(SUBSETS[dataset]))
    return sorted(int(label) for label in frame["label"].unique())


@cache
def _timm_list(name: str) -> tuple[str, ...]:
    return tuple((files("timm.data") / "_info" / name).read_text(encoding="utf-8").split())
