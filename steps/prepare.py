"""List a set: one manifest row an image, with content hash, size and what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json
from densecl.datasets.manifests.scan import Progress, list_classes, scan_dataset
from densecl.datasets.storage.manifest import write_manifest, write_missing_manifest
from densecl.errors import DataError
from densecl.runtime.hardware import count_workers


def main(dataset: str) -> None:
    """Write data/manifests/<set>.parquet; of a set that may be missing and is, without rows and
    with the reason.
    """
    plan = read_json(DatasetPlan, paths.plan_file(dataset))
    source, classes = plan.dataset, list_classes(Path(plan.train_root))
    try:
        with _open_progress_bar(dataset) as progress:
            frame = scan_dataset(
                dataset,
                Path(source.root),
                source.layout,
                classes,
                max(1, count_workers()),
                devkit=source.devkit,
                progress=progress,
            )
    except DataError as error:
        if not plan.optional:
            raise
        write_missing_manifest(paths.manifest_file(dataset), str(error))
        print(f"{dataset}: left out: {error}")
        return
    write_manifest(frame, paths.manifest_file(dataset))
    print(f"{len(frame)} files of {frame['label'].nunique()} classes in {source.root}")


@contextmanager
def _open_progress_bar(dataset: str) -> Iterator[Progress | None]:
    """What to call with (done, total): a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bars, TimeRemainingColumn

    with Bars(
        f"{dataset}: ",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        task = bars.add_task(dataset, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
