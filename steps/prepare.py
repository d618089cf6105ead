"""List a set: one manifest row an image, with content hash, size and what is wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densecl import paths
from densecl.artifacts import SetPlan, read_json
from densecl.datasets.manifests.missing_manifest import write_absent
from densecl.datasets.manifests.scan import Progress, class_list, scan
from densecl.datasets.storage.manifest import write_manifest
from densecl.errors import DataError
from densecl.runtime.hardware import workers


def main(set: str) -> None:
    """Write data/manifests/<set>.parquet; of a set that may be missing and is, without rows and
    with the reason.
    """
    plan = read_json(SetPlan, paths.plan(set))
    of, classes = plan.dataset, class_list(Path(plan.train_root))
    try:
        with _bar(set) as progress:
            frame = scan(
                set,
                Path(of.root),
                of.layout,
                classes,
                max(1, workers()),
                devkit=of.devkit,
                progress=progress,
            )
    except DataError as error:
        if not plan.optional:
            raise
        write_absent(paths.manifest(set), str(error))
        print(f"{set}: left out: {error}")
        return
    write_manifest(frame, paths.manifest(set))
    print(f"{len(frame)} files of {frame['label'].nunique()} classes in {of.root}")


@contextmanager
def _bar(set: str) -> Iterator[Progress | None]:
    """What to call with (done, total): a bar on a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bars, TimeRemainingColumn

    with Bars(
        f"{set}: ",
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    ) as bars:
        task = bars.add_task(set, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
