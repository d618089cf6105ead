"""What the published sets hold; it counts only where the class list is that of ImageNet-1k."""

from __future__ import annotations

import json
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd

ALL = "imagenet_synsets.txt"  # timm's data file of the 1000 wnids
# ReaL (Beyer et al. 2020): the classes that raters see, of each validation image
REAL = "imagenet_real_labels.json"
VALIDATION = re.compile(r"(?:.*/)?ILSVRC2012_val_(\d{8})\.\w+")


class Published(NamedTuple):
    images: int
    wnids: str  # timm's data file of the set's classes


SETS = {
    "imagenet-train": Published(1_281_167, ALL),
    "imagenet": Published(50_000, ALL),
    "imagenet-a": Published(7_500, "imagenet_a_synsets.txt"),
    "imagenet-r": Published(30_000, "imagenet_r_synsets.txt"),
    "imagenet-v2": Published(10_000, ALL),
    "stylized": Published(50_000, ALL),
    "sketch": Published(50_889, ALL),  # its own page says 50,000
}


def published(dataset: str, classes: list[str]) -> tuple[int, list[str]] | None:
    """Images and sorted wnids of the set as its authors published it; None for other sets and other
    class lists.
    """
    if dataset not in SETS or len(classes) != 1000 or classes != sorted(words(ALL)):
        return None
    return SETS[dataset].images, sorted(words(SETS[dataset].wnids))


def confirmed(frame: pd.DataFrame) -> pd.Series:
    """[rows] True where ReaL's raters see the image's class, False where only others; null where
    they see none.

    Null for files that do not carry the name of an ImageNet validation image.
    """
    numbers = frame["path"].str.extract(VALIDATION, expand=False)
    if numbers.isna().all():
        return pd.Series([None] * len(frame), frame.index, dtype="object")
    seen = json.loads(_file(REAL).read_text(encoding="utf-8"))
    told = [
        None if pd.isna(number) or not 1 <= int(number) <= len(seen) else seen[int(number) - 1]
        for number in numbers
    ]
    return pd.Series(
        [label in of if of else None for of, label in zip(told, frame["label"], strict=True)],
        frame.index,
        dtype="object",
    )


@cache
def lemmas() -> dict[str, str]:
    """wnid -> what it is, in a word or two; the synsets of ImageNet-22k."""
    lines = _file("imagenet_synset_to_lemma.txt").read_text(encoding="utf-8").splitlines()
    return {
        wnid: text.split(",")[0]
        for wnid, text in (line.split("\t", 1) for line in lines if "\t" in line)
    }


@cache
def words(name: str) -> tuple[str, ...]:
    """Lines of one of timm's data files."""
    return tuple(_file(name).read_text(encoding="utf-8").split())


def _file(name: str) -> Path:
    """One of timm's data files, found without importing timm, which takes seconds."""
    found = find_spec("timm")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("timm")
    return Path(found.origin).parent / "data" / "_info" / name
