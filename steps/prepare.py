"""List a dataset: one manifest row per image, with its content hash, size and problems; every other
file is counted by reason.
"""

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from densecl import paths
from densecl.artifacts import DatasetPlan, SkippedFiles, read_json, write_json
from densecl.datasets.imagenet import OFFICIAL_DATASETS
from densecl.datasets.manifests.listing import Listing, list_classes, list_dataset
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.storage.manifest import (
    count_problems,
    write_manifest,
    write_missing_manifest,
)
from densecl.datasets.storage.skipped_files import describe_skipped
from densecl.errors import DataError
from densecl.runtime.hardware import count_workers
from densecl.runtime.progress import write_progress


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
    source, root = plan.dataset, Path(plan.dataset.root)
    classes = list_classes(Path(plan.train_root))
    listing = list_dataset(
        root,
        source.layout,
        classes,
        source.devkit,
        is_published=plan.protocol in OFFICIAL_DATASETS,
    )
    with Progress(
        f"{plan.name}: ",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(plan.name, total=None)

        def update_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            write_progress(done, total)

        workers = max(1, count_workers())
        return scan_listing(plan.name, root, listing, classes, workers, update_progress), listing
