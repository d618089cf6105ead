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
from densecl.analysis.results import READ_ERRORS


class ImageContents:
    """The manifests below a root; each is read once, and only on demand."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.get_digest = cache(self._compute_digest)
        self.get_manifest = cache(self._read_manifest)

    def list_datasets(self) -> list[str]:
        return sorted(path.stem for path in (self.root / paths.MANIFESTS).glob("*.parquet"))

    def _compute_digest(self, dataset: str) -> str:
        """Of the manifest's bytes; "" where there is none."""
        path = self.root / paths.manifest_file(dataset)
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""

    def _read_manifest(self, dataset: str) -> pd.DataFrame | None:
        """sha256 and wnid by image_id; None where there is no manifest that can be read."""
        try:
            rows = pd.read_parquet(
                self.root / paths.manifest_file(dataset), columns=["image_id", "sha256", "wnid"]
            )
        except READ_ERRORS:
            return None
        return rows.drop_duplicates("image_id").set_index("image_id")


@dataclass(frozen=True)
class ImageDiff:
    """The images of one set in A and in B."""

    dataset: str
    images: tuple[int | None, int | None]  # None: no manifest
    is_identical: bool = False  # the manifests are the same bytes
    added: int = 0
    removed: int = 0
    changed: int = 0  # another content under the same name
    relabelled: int = 0
    moved: int = 0  # of those added: the content of one that was removed


def compare_image_contents(a: ImageContents, b: ImageContents, dataset: str) -> ImageDiff:
    first, second = a.get_manifest(dataset), b.get_manifest(dataset)
    counts = (None if first is None else len(first), None if second is None else len(second))
    if first is None or second is None:
        return ImageDiff(dataset, counts)
    if a.get_digest(dataset) == b.get_digest(dataset):
        return ImageDiff(dataset, counts, is_identical=True)
    common = first.index.intersection(second.index)
    added, removed = second.drop(common), first.drop(common)
    return ImageDiff(
        dataset,
        counts,
        added=len(added),
        removed=len(removed),
        changed=_count_differing(first, second, common, "sha256"),
        relabelled=_count_differing(first, second, common, "wnid"),
        moved=int(added["sha256"].isin(removed["sha256"]).sum()),
    )


def _count_differing(
    first: pd.DataFrame, second: pd.DataFrame, common: pd.Index, column: str
) -> int:
    return int(
        (first.loc[common, column].to_numpy() != second.loc[common, column].to_numpy()).sum()
    )
