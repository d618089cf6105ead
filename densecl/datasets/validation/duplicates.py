"""Find duplicates: images with the same bytes, or of the same photograph, within a dataset or in
the training dataset.

Each function returns columns aligned with `images` (usable rows of a manifest): the text of the
finding, null if there is none, and `<column>_id`: the image_id of the original image.
"""

import numpy as np
import pandas as pd

from densecl.datasets.manifests.dhash import DHashIndex, parse_hashes
from densecl.datasets.storage.filenames import to_printable


class HashIndex:
    """Searchable difference hashes of a manifest's usable images, without blank ones."""

    def __init__(self, images: pd.DataFrame) -> None:
        self.rows = np.flatnonzero(
            images["dhash"].str.fullmatch("[0-9a-f]{64}").to_numpy(dtype=bool)
        )
        self.index = DHashIndex(parse_hashes(images["dhash"].iloc[self.rows].tolist()))


def find_same_content(images: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """`leaked`: path of the first training image with the same bytes, and whether its class
    differs.
    """
    first_train = train.drop_duplicates("sha256").set_index("sha256")
    matches = first_train.reindex(images["sha256"]).set_index(images.index)
    is_other_class = matches["path"].notna() & (matches["label"] != images["label"])
    return pd.DataFrame(
        {"leaked": _format_path(matches["path"], is_other_class), "leaked_id": matches["image_id"]}
    )


def find_repeated(images: pd.DataFrame) -> pd.DataFrame:
    """`repeated`: path of the first image of the dataset with the same bytes; `other`: another
    class with these bytes.
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
    """`near`: the most similar other image, of the training dataset or else of the dataset
    itself.

    `is_train`: the dataset is the training set.
    """
    hashes = train_hashes if is_train else HashIndex(images)
    columns = pd.DataFrame({"near": None, "near_id": None}, index=images.index, dtype="object")
    searches = [(hashes.index.find_repeats(), hashes, images, "")]
    if not is_train:
        matches = train_hashes.index.find_nearest(hashes.index.keys)
        searches.append((matches, train_hashes, train, " of the train set"))
    for matches, hash_index, frame, suffix in searches:
        for query in np.flatnonzero(matches.key >= 0):
            row, other = hashes.rows[query], frame.iloc[hash_index.rows[matches.key[query]]]
            if images["sha256"].iloc[row] != other["sha256"]:
                mirrored = " mirrored" if matches.mirrored[query] else ""
                columns.iloc[row] = [
                    f"looks like {to_printable(other['path'])}{suffix}{mirrored} "
                    f"({matches.bits[query]} of 256 bits of its hash differ)",
                    other["image_id"],
                ]
    return columns.astype("str")


def _format_path(path: pd.Series, is_other_class: pd.Series) -> pd.Series:
    return path + is_other_class.map({True: " (of another class)", False: ""})
