"""A split of the training images: those that trials train on, those that choose, and those that
confirm. No evaluation set is read.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from densecl.errors import DataError
from densecl.seeding import derive_seed


class TrainingSplit(NamedTuple):
    """Rows of the training manifest; no content is in two of them."""

    fit: pd.DataFrame
    select: pd.DataFrame
    confirm: pd.DataFrame


def split_training_images(frame: pd.DataFrame, seed: int, held_back: float) -> TrainingSplit:
    """Split each class: `held_back` of its images in two halves, at least one image in each, and
    the rest to train on.

    An image's place follows from the seed and its content (its perceptual hash, if the manifest
    has one): equal images go together, across classes too, and other images move none. Contents
    with more images than a half are held back last. DataError names a class that has too few.
    """
    content = frame["dhash"].where(frame["dhash"] != "", frame["sha256"])
    order = pd.Series([derive_seed(seed, "held-back", key) for key in content], index=frame.index)
    part = pd.Series("fit", index=frame.index)
    for wnid, keys in order.groupby(frame["wnid"]):
        half = max(1, round(len(keys) * held_back / 2))
        counts = keys.value_counts().sort_index()
        if len(counts) < 3 or len(keys) <= 2 * half:
            raise DataError(
                f"class {wnid}: found {len(keys)} training images ({len(counts)} of them "
                "different), expected enough to hold two parts back; add images, or lower "
                "sweep.held_back"
            )
        select, confirm = _choose_contents(counts, half)
        part[keys.index[keys.isin(select)]] = "select"
        part[keys.index[keys.isin(confirm)]] = "confirm"
    # The first of equal images, in the order select, confirm, fit, takes the others with it.
    for name in ("confirm", "select"):
        part[content.isin(content[part == name])] = name
    _check_parts(frame, part)
    chosen = (frame[part == name].reset_index(drop=True) for name in TrainingSplit._fields)
    return TrainingSplit(*chosen)


def _choose_contents(
    counts: "pd.Series[int]", half: int
) -> tuple["pd.Index[int]", "pd.Index[int]"]:
    """Contents of a class that select and that confirm, of `half` images each as nearly as whole
    contents allow; `counts` has the images of each content, in order.
    """
    counts = pd.concat([counts[counts <= half], counts[counts > half]])
    sums = counts.cumsum().to_numpy()
    end = 2 + int(np.abs(sums[1:-1] - 2 * half).argmin())  # one content at least is left to fit
    middle = 1 + int(np.abs(sums[: end - 1] - sums[end - 1] / 2).argmin())
    return counts.index[:middle], counts.index[middle:end]


def _check_parts(frame: pd.DataFrame, part: "pd.Series[str]") -> None:
    found = part.groupby(frame["wnid"]).agg(set)
    for wnid, names in found.items():
        if missing := [name for name in TrainingSplit._fields if name not in names]:
            raise DataError(
                f"class {wnid}: found no image for the part {missing[0]}, expected one in each of "
                f"{', '.join(TrainingSplit._fields)}; its images equal those of other classes: "
                "remove the copies, or change sweep.seed"
            )
