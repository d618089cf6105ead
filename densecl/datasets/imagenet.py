"""Facts about the published datasets; they apply only if the class list is that of ImageNet-1k."""

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd

IMAGENET1K_WNIDS = "imagenet_synsets.txt"  # timm's data file of the 1000 wnids
# ReaL (Beyer et al. 2020): the classes that raters see, per validation image
REAL_LABELS = "imagenet_real_labels.json"
VALIDATION_NAME = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.\w+")


class OfficialDataset(NamedTuple):
    images: int
    wnids_file: str  # timm's data file of the classes


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
    """Published number of images and sorted wnids of a dataset; None for other datasets and class
    lists.
    """
    if dataset not in OFFICIAL_DATASETS or classes != sorted(read_lines(IMAGENET1K_WNIDS)):
        return None
    official = OFFICIAL_DATASETS[dataset]
    return official.images, sorted(read_lines(official.wnids_file))


def compute_real_agreement(frame: pd.DataFrame) -> pd.Series:
    """[rows] True if ReaL's raters see the image's class, False if only others; null if none."""
    numbers = frame["image_id"].str.extract(VALIDATION_NAME, expand=False)
    if numbers.isna().all():
        return pd.Series(None, frame.index, dtype="object")
    real_labels = json.loads(_find_timm_file(REAL_LABELS).read_text(encoding="utf-8"))
    seen = numbers.fillna("0").astype(int).map(dict(enumerate(map(tuple, real_labels), 1)))
    agreement = [
        label in classes if isinstance(classes, tuple) and classes else None
        for label, classes in zip(frame["label"], seen, strict=True)
    ]
    return pd.Series(agreement, frame.index, dtype="object")


@cache
def load_class_descriptions() -> dict[str, str]:
    """wnid -> short description, for the synsets of ImageNet-22k."""
    return {wnid: words.split(",")[0] for wnid, words in load_lemmas().items()}


@cache
def load_lemmas() -> dict[str, str]:
    """wnid -> its words in English, separated by commas, for the synsets of ImageNet-22k."""
    text = _find_timm_file("imagenet_synset_to_lemma.txt").read_text(encoding="utf-8")
    lines = (line.partition("\t") for line in text.splitlines())
    return {wnid: words for wnid, tab, words in lines if tab}


@cache
def read_lines(name: str) -> tuple[str, ...]:
    """Lines of one of timm's data files."""
    return tuple(_find_timm_file(name).read_text(encoding="utf-8").split())


def _find_timm_file(name: str) -> Path:
    """Path of one of timm's data files, without importing timm, which takes seconds."""
    spec = find_spec("timm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("timm")
    return Path(spec.origin).parent / "data" / "_info" / name
