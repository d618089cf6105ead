"""What the published sets hold; it counts only where the class list is that of ImageNet-1k."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd

IMAGENET1K_WNIDS = "imagenet_synsets.txt"  # timm's data file of the 1000 wnids
# ReaL (Beyer et al. 2020): the classes that raters see, of each validation image
REAL_LABELS = "imagenet_real_labels.json"
VALIDATION_NAME = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.\w+")


class OfficialDataset(NamedTuple):
    images: int
    wnids_file: str  # timm's data file of the set's classes


OFFICIAL_DATASETS = {
    "imagenet-train": OfficialDataset(1_281_167, IMAGENET1K_WNIDS),
    "imagenet": OfficialDataset(50_000, IMAGENET1K_WNIDS),
    "imagenet-a": OfficialDataset(7_500, "imagenet_a_synsets.txt"),
    "imagenet-r": OfficialDataset(30_000, "imagenet_r_synsets.txt"),
    "imagenet-v2": OfficialDataset(10_000, IMAGENET1K_WNIDS),
    "stylized": OfficialDataset(50_000, IMAGENET1K_WNIDS),
    "sketch": OfficialDataset(50_889, IMAGENET1K_WNIDS),  # its own page says 50,000
}


def get_official_counts(dataset: str, classes: list[str]) -> tuple[int, list[str]] | None:
    """Images and sorted wnids of the set as its authors published it; None for other sets and other
    class lists.
    """
    if (
        dataset not in OFFICIAL_DATASETS
        or len(classes) != 1000
        or classes != sorted(read_lines(IMAGENET1K_WNIDS))
    ):
        return None
    return OFFICIAL_DATASETS[dataset].images, sorted(
        read_lines(OFFICIAL_DATASETS[dataset].wnids_file)
    )


def compute_real_agreement(frame: pd.DataFrame) -> pd.Series:
    """[rows] True where ReaL's raters see the image's class, False where only others; null where
    they see none.

    Null for files that do not carry the name of an ImageNet validation image.
    """
    numbers = frame["path"].str.extract(VALIDATION_NAME, expand=False)
    if numbers.isna().all():
        return pd.Series([None] * len(frame), frame.index, dtype="object")
    real_labels = json.loads(_find_timm_file(REAL_LABELS).read_text(encoding="utf-8"))
    labels = [
        None
        if pd.isna(number) or not 1 <= int(number) <= len(real_labels)
        else real_labels[int(number) - 1]
        for number in numbers
    ]
    return pd.Series(
        [
            label in real if real else None
            for real, label in zip(labels, frame["label"], strict=True)
        ],
        frame.index,
        dtype="object",
    )


@cache
def load_class_descriptions() -> dict[str, str]:
    """wnid -> what it is, in a word or two; the synsets of ImageNet-22k."""
    lines = _find_timm_file("imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    return {
        wnid: text.split(",")[0]
        for wnid, text in (line.split("\t", 1) for line in lines if "\t" in line)
    }


@cache
def read_lines(name: str) -> tuple[str, ...]:
    """Lines of one of timm's data files."""
    return tuple(_find_timm_file(name).read_text(encoding="utf-8").split())


def _find_timm_file(name: str) -> Path:
    """One of timm's data files, found without importing timm, which takes seconds."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("timm")
    return Path(spec.origin).parent / "data" / "_info" / name
