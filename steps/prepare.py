"""List a dataset: one manifest row per image, with its content hash, size and problems."""

import sys
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json
from densecl.datasets.manifests.scan import list_classes, scan_dataset
from densecl.datasets.storage.manifest import write_manifest, write_missing_manifest
from densecl.errors import DataError
from densecl.runtime.hardware import count_workers
from densecl.runtime.progress import write_progress


def main(dataset: str) -> None:
    """Write data/manifests/<set>.parquet; for a missing optional dataset, an empty manifest with
    the reason.
    """
    plan, path = read_json(DatasetPlan, paths.plan_file(dataset)), paths.manifest_file(dataset)
    try:
        frame = scan_images(plan)
    except DataError as error:
        if not plan.optional:
            raise
        write_missing_manifest(path, str(error))
        print(f"{dataset}: skipped: {error}")
        return
    write_manifest(frame, path)
    print(f"{len(frame)} files of {frame['label'].nunique()} classes in {plan.dataset.root}")


def scan_images(plan: DatasetPlan) -> pd.DataFrame:
    """The manifest of a dataset; shows a progress bar on a terminal."""
    source = plan.dataset
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

        return scan_dataset(
            plan.name,
            Path(source.root),
            source.layout,
            list_classes(Path(plan.train_root)),
            max(1, count_workers()),
            devkit=source.devkit,
            progress=update_progress,
        )
