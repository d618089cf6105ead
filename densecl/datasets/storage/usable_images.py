"""The usable images of a dataset, as stages after validation read them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from densecl import paths
from densecl.artifacts import DatasetPlan, ValidationResult, read_json
from densecl.datasets.storage.folder_times import check_folders
from densecl.datasets.storage.image_places import list_archives
from densecl.datasets.storage.manifest import read_manifest, select_usable
from densecl.datasets.storage.remote_root import locate_root
from densecl.datasets.storage.remote_store import is_remote
from densecl.datasets.storage.shard_cache import stage_shards
from densecl.errors import DataError
from densecl.runtime.progress import show_bytes

# A manifest of a million rows takes 350 MB, these columns 150 to 200 MB.
CHECKED_COLUMNS = ("image_id", "path", "bytes", "problem")
TRAINING_COLUMNS = ("image_id", "path", "label", "sha256")
SCORING_COLUMNS = ("image_id", "path", "label", "wnid", "width", "height")


@dataclass(frozen=True)
class ImageSet:
    """Usable rows of a dataset, and the location of its images."""

    frame: pd.DataFrame
    root: Path
    preprocess: Literal["model", "as-is"] | None = None  # None: as in the protocol
    protocol: str = "folder"
    classes: tuple[str, ...] = ()  # wnids it is scored over; empty: as in the protocol
    grouped: bool = False  # its labels are groups of classes


def load_usable_images(
    name: str, columns: Sequence[str] | None = None, *, fetch: bool = True
) -> ImageSet:
    """Rows of the manifest without those that validation excluded; DataError if validation failed
    or a file has changed since. With `columns`, the frame has these only.

    `fetch`: shards of a remote root are fetched now, else when they are read.
    """
    plan = read_json(DatasetPlan, paths.plan_file(name))
    return load_planned_images(plan, columns, fetch=fetch)


def fetch_images(name: str, root: Path, frame: pd.DataFrame) -> None:
    """Fetch the shards that the rows are in; CacheFullError if they do not fit together."""
    with show_bytes(f"{name}: fetching shards") as progress:
        stage_shards(list_archives(root, frame["path"]), progress)


def load_planned_images(
    plan: DatasetPlan, columns: Sequence[str] | None = None, *, fetch: bool = True
) -> ImageSet:
    """As `load_usable_images`, of the dataset of a plan."""
    verdict = read_json(ValidationResult, paths.validation_file(plan.name))
    if not verdict.passed:
        first, *others = verdict.failures
        more = f"; and {len(others)} more, see {paths.VALIDATION_PAGE}" if others else ""
        raise DataError(first + more)
    root, manifest = locate_root(plan.dataset), paths.manifest_file(plan.name)
    needed = None if columns is None else {*columns, *CHECKED_COLUMNS}
    frame = select_usable(read_manifest(manifest, needed), verdict.excluded)
    if fetch and is_remote(plan.dataset.root):
        fetch_images(plan.name, root, frame)
    check_folders(frame, root, manifest)
    return ImageSet(
        frame if columns is None else frame[list(columns)],
        root,
        plan.preprocess,
        plan.protocol,
        plan.classes,
        bool(plan.groups),
    )
