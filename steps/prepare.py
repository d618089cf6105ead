"""List a dataset: one manifest row per image, with its content hash, size and problems; every other
file is counted by reason.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from densecl import paths
from densecl.artifacts import DatasetPlan, SkippedFiles, read_json, write_json
from densecl.datasets.imagenet import OFFICIAL_DATASETS, get_official_counts
from densecl.datasets.manifests.kept_scans import list_unscanned
from densecl.datasets.manifests.layouts.sources import list_source, list_train_classes
from densecl.datasets.manifests.listing import Listing
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.storage.cache_room import CacheFullError
from densecl.datasets.storage.manifest import (
    count_problems,
    write_manifest,
    write_missing_manifest,
)
from densecl.datasets.storage.remote_root import locate_root
from densecl.datasets.storage.remote_store import is_remote
from densecl.datasets.storage.shard_cache import find_shard, stage_shards
from densecl.datasets.storage.skipped_files import describe_skipped
from densecl.errors import DataError
from densecl.runtime.hardware import count_workers
from densecl.runtime.progress import show_bytes, write_progress


def main(dataset: str) -> None:
    """Write data/manifests/<set>.parquet and data/skipped/<set>.json; for a missing optional
    dataset, an empty manifest with the reason.
    """
    plan, path = read_json(DatasetPlan, paths.plan_file(dataset)), paths.manifest_file(dataset)
    try:
        frame, listing = scan_images(plan)
    except DataError as error:
        if not plan.optional:
            raise
        write_missing_manifest(path, str(error))
        write_json(paths.skipped_file(dataset), SkippedFiles(dataset=dataset, skipped={}))
        print(f"{dataset}: skipped: {error}")
        return
    write_manifest(frame, path)
    write_json(
        paths.skipped_file(dataset),
        SkippedFiles(dataset=dataset, skipped=dict(listing.skipped), notes=listing.notes),
    )
    print(describe_scan(frame, listing, plan.dataset.root))


def describe_scan(frame: pd.DataFrame, listing: Listing, root: str) -> str:
    """One line: rows of the manifest, and what of the dataset is not used, by reason."""
    parts = [f"{len(frame)} files of {frame['label'].nunique()} classes in {root}"]
    if listing.skipped:
        parts.append(f"skipped {describe_skipped(listing.skipped)}")
    if problems := count_problems(frame):
        parts.append(f"with a problem {describe_skipped(problems)}")
    return "; ".join([*parts, *listing.notes])


def scan_images(plan: DatasetPlan) -> tuple[pd.DataFrame, Listing]:
    """The manifest of a dataset, and the counts of its other files; shows a progress bar on a
    terminal.
    """
    source, root = plan.dataset, locate_root(plan.dataset)
    classes = list(plan.groups.members) if plan.groups else list_train_classes(plan.train)
    listing = list_source(source, classes, is_published=plan.protocol in OFFICIAL_DATASETS)
    unscanned = None
    if is_remote(source.root):
        unscanned = list_unscanned(root, (path for path, _ in listing.images), plan.exif)
        fetch_shards(plan.name, unscanned)
    with show_images(plan.name) as progress:
        workers = max(1, count_workers())
        scan = scan_listing(
            plan.name, root, listing, classes, workers, progress, plan.exif, unscanned
        )
    notes = (
        *listing.notes,
        *describe_turned(plan, classes, scan.turned),
        *describe_mislabelled(scan.frame),
    )
    return scan.frame, listing._replace(notes=notes)


@contextmanager
def show_images(name: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; yields a function that receives the images done and their total."""
    with Progress(
        f"{name}: ",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(name, total=None)

        def update_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            write_progress(done, total)

        yield update_progress


def fetch_shards(name: str, images: Iterable[Path]) -> None:
    """Fetch the shards of the images together, if the cache holds them; else each when it is read,
    in the place of an earlier one.
    """
    find = cache(find_shard)
    shards = [shard for shard in dict.fromkeys(find(path.parent) for path in images) if shard]
    with suppress(CacheFullError), show_bytes(f"{name}: fetching shards") as progress:
        stage_shards(shards, progress)


def describe_mislabelled(frame: pd.DataFrame) -> Iterator[str]:
    """How many images have the content of an image of another class."""
    known = frame[frame["sha256"] != ""]
    classes = known.groupby("sha256")["wnid"].transform("nunique")
    if count := int((classes > 1).sum()):
        yield f"warning: {count:,} images have the same content as one in another class folder"


def describe_turned(plan: DatasetPlan, classes: list[str], turned: int) -> Iterator[str]:
    """What is done with images whose EXIF orientation is not upright; of a published dataset
    nothing is said where its protocol is followed.
    """
    is_published = get_official_counts(plan.name, classes) is not None
    if turned and plan.exif == "apply":
        published = ", unlike in the published protocol" if is_published else ""
        yield f"{turned:,} images turned upright by their EXIF orientation{published}"
    elif turned and not is_published:
        yield (
            f"warning: {turned:,} images lie on a side or upside down: their EXIF orientation is "
            "ignored (data.exif: apply turns them upright)"
        )
