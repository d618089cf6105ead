"""What the images of an experiment were: its manifests, so that an image is known by its content
and not its name alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.analysis.results import UNUSABLE


class Contents:
    """The manifests below a root; each is read once, and only where it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digest = cache(self._digest)
        self.manifest = cache(self._manifest)

    def sets(self) -> list[str]:
        return sorted(path.stem for path in (self.root / paths.MANIFESTS).glob("*.parquet"))

    def _digest(self, dataset: str) -> str:
        """Of the manifest's bytes; "" where there is none."""
        path = self.root / paths.manifest(dataset)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _manifest(self, dataset: str) -> pd.DataFrame | None:
        """sha256 and wnid by image_id; None where there is no manifest that can be read."""
        try:
            rows = pd.read_parquet(
                self.root / paths.manifest(dataset), columns=["image_id", "sha256", "wnid"]
            )
        except UNUSABLE:
            return None
        return rows.drop_duplicates("image_id").set_index("image_id")


@dataclass(frozen=True)
class SetChange:
    """The images of one set in A and in B."""

    dataset: str
    images: tuple[int | None, int | None]  # None: no manifest
    same: bool = False  # the manifests are the same bytes
    added: int = 0
    removed: int = 0
    changed: int = 0  # another content under the same name
    relabelled: int = 0
    moved: int = 0  # of those added: the content of one that was removed


def set_change(a: Contents, b: Contents, dataset: str) -> SetChange:
    first, second = a.manifest(dataset), b.manifest(dataset)
    counts = (None if first is None else len(first), None if second is None else len(second))
    if first is None or second is None:
        return SetChange(dataset, counts)
    if a.digest(dataset) == b.digest(dataset):
        return SetChange(dataset, counts, same=True)
    both = first.index.intersection(second.index)
    added, removed = second.drop(both), first.drop(both)
    return SetChange(
        dataset,
        counts,
        added=len(added),
        removed=len(removed),
        changed=_differ(first, second, both, "sha256"),
        relabelled=_differ(first, second, both, "wnid"),
        moved=int(added["sha256"].isin(removed["sha256"]).sum()),
    )


def _differ(first: pd.DataFrame, second: pd.DataFrame, both: pd.Index, column: str) -> int:
    return int((first.loc[both, column].to_numpy() != second.loc[both, column].to_numpy()).sum())
