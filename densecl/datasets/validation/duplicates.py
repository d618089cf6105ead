"""What images of a set repeat: the same bytes or the same photograph, inside the set or in the
train set.

Each function gives columns aligned with `images` (rows of a manifest that can be used): what is
told, null where there is nothing to tell, and `<column>_id`, the image_id of the image repeated.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from densecl.datasets.manifests.dhash import DHashIndex, NearestMatches, parse_hashes
from densecl.datasets.storage.filenames import to_printable


class HashIndex:
    """Difference hashes of a manifest's usable images, blank ones left out, ready to be
    searched.
    """

    def __init__(self, images: pd.DataFrame) -> None:
        self.rows = np.flatnonzero(
            images["dhash"].str.fullmatch("[0-9a-f]{64}").to_numpy(dtype=bool)
        )
        self.index = DHashIndex(parse_hashes(images["dhash"].iloc[self.rows].tolist()))


def find_same_content(images: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """`leaked`: path of the first train image with the same bytes, and whether its class is
    another.
    """
    first_train = train.drop_duplicates("sha256").set_index("sha256")
    matches = first_train.reindex(images["sha256"]).set_index(images.index)
    is_other_class = matches["path"].notna() & (matches["label"] != images["label"])
    return pd.DataFrame(
        {"leaked": _format_path(matches["path"], is_other_class), "leaked_id": matches["image_id"]}
    )


def find_repeated(images: pd.DataFrame) -> pd.DataFrame:
    """`repeated`: path of the first image of the set with the same bytes; `other`: another class
    that has these bytes.
    """
    groups = images.groupby("sha256", sort=False)
    first, first_id = groups["path"].transform("first"), groups["image_id"].transform("first")
    wnid, last = groups["wnid"].transform("first"), groups["wnid"].transform("last")
    is_repeat = first != images["path"]
    other = wnid.where(wnid != images["wnid"], last.where(last != images["wnid"]))
    return pd.DataFrame(
        {
            "repeated": _format_path(first, wnid != images["wnid"]).where(is_repeat),
            "repeated_id": first_id.where(is_repeat),
            "other": other,
        }
    )


def find_near_duplicates(
    images: pd.DataFrame, train_hashes: HashIndex, train: pd.DataFrame, *, is_train: bool
) -> pd.DataFrame:
    """`near`: the most similar image of the train set, else of the set itself, that is not the same
    file.

    `is_train`: the set is the train set.
    """
    own_hashes = train_hashes if is_train else HashIndex(images)
    columns = pd.DataFrame({"near": None, "near_id": None}, index=images.index, dtype="object")
    searches = [(own_hashes.index.find_repeats(), own_hashes, images, "")]
    if not is_train:
        searches.append(
            (
                train_hashes.index.find_nearest(own_hashes.index.keys),
                train_hashes,
                train,
                " of the train set",
            )
        )
    for matches, hash_index, frame, suffix in searches:
        for query in np.flatnonzero(matches.key >= 0):
            row, other = own_hashes.rows[query], frame.iloc[hash_index.rows[matches.key[query]]]
            if images["sha256"].iloc[row] != other["sha256"]:
                columns.iloc[row] = [
                    _describe_match(other, matches, int(query), suffix),
                    other["image_id"],
                ]
    return columns.astype("str")


def _describe_match(other: pd.Series, matches: NearestMatches, query: int, suffix: str) -> str:
    mirrored = " mirrored" if matches.mirrored[query] else ""
    return (
        f"looks like {to_printable(other['path'])}{suffix}{mirrored} "
        f"({matches.bits[query]} of 256 bits of its hash differ)"
    )


def _format_path(path: pd.Series, is_other_class: pd.Series) -> pd.Series:
    return path + is_other_class.map({True: " (of another class)", False: ""})
