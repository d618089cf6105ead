"""What images of a set repeat: the same bytes or the same photograph, inside the set or in the
train set.

Each function gives columns aligned with `images` (rows of a manifest that can be used): what is
told, null where there is nothing to tell, and `<column>_id`, the image_id of the image repeated.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from densecl.datasets.manifests.dhash import Index, Nearest, hashes
from densecl.datasets.storage.filenames import shown


class Hashed:
    """Difference hashes of a manifest's usable images, blank ones left out, ready to be
    searched.
    """

    def __init__(self, images: pd.DataFrame) -> None:
        self.rows = np.flatnonzero(
            images["dhash"].str.fullmatch("[0-9a-f]{64}").to_numpy(dtype=bool)
        )
        self.index = Index(hashes(images["dhash"].iloc[self.rows].tolist()))


def same_content(images: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """`leaked`: path of the first train image with the same bytes, and whether its class is
    another.
    """
    first = train.drop_duplicates("sha256").set_index("sha256")
    found = first.reindex(images["sha256"]).set_index(images.index)
    other = found["path"].notna() & (found["label"] != images["label"])
    return pd.DataFrame({"leaked": _told(found["path"], other), "leaked_id": found["image_id"]})


def repeated_in(images: pd.DataFrame) -> pd.DataFrame:
    """`repeated`: path of the first image of the set with the same bytes; `other`: another class
    that has these bytes.
    """
    groups = images.groupby("sha256", sort=False)
    first, first_id = groups["path"].transform("first"), groups["image_id"].transform("first")
    wnid, last = groups["wnid"].transform("first"), groups["wnid"].transform("last")
    again = first != images["path"]
    other = wnid.where(wnid != images["wnid"], last.where(last != images["wnid"]))
    return pd.DataFrame(
        {
            "repeated": _told(first, wnid != images["wnid"]).where(again),
            "repeated_id": first_id.where(again),
            "other": other,
        }
    )


def near_duplicates(
    images: pd.DataFrame, hashed: Hashed, train: pd.DataFrame, *, inside: bool
) -> pd.DataFrame:
    """`near`: the most similar image of the train set, else of the set itself, that is not the same
    file.

    `inside`: the set is the train set.
    """
    own = hashed if inside else Hashed(images)
    columns = pd.DataFrame({"near": None, "near_id": None}, index=images.index, dtype="object")
    searches = [(own.index.repeats(), own, images, "")]
    if not inside:
        searches.append((hashed.index.nearest(own.index.keys), hashed, train, " of the train set"))
    for found, among, frame, where in searches:
        for query in np.flatnonzero(found.key >= 0):
            row, other = own.rows[query], frame.iloc[among.rows[found.key[query]]]
            if images["sha256"].iloc[row] != other["sha256"]:
                columns.iloc[row] = [_near(other, found, int(query), where), other["image_id"]]
    return columns.astype("str")


def _near(other: pd.Series, found: Nearest, query: int, where: str) -> str:
    turned = " mirrored" if found.mirrored[query] else ""
    return (
        f"looks like {shown(other['path'])}{where}{turned} "
        f"({found.bits[query]} of 256 bits of its hash differ)"
    )


def _told(path: pd.Series, other: pd.Series) -> pd.Series:
    return path + other.map({True: " (of another class)", False: ""})
