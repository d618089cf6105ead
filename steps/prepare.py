"""List a set: one manifest row an image, with content hash, size and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from densecl import layout
from densecl.datasets.absent import write_absent
from densecl.datasets.manifest import class_list, scan, write_manifest
from densecl.errors import DataError
from densecl.hardware import workers
from densecl.records import SetPlan, read_json


def main(set: str) -> None:
    """Write data/manifests/<set>.parquet; of a set that may be missing and is, without rows and with the reason."""
    plan = read_json(SetPlan, layout.plan(set))
    classes = class_list(Path(plan.train_root))
    try:
        frame = scan(set, Path(plan.dataset.root), plan.dataset.layout, classes, max(1, workers()))
    except DataError as error:
        if not plan.optional:
            raise
        write_absent(layout.manifest(set), str(error))
        print(f"{set}: left out: {error}")
        return
    write_manifest(frame, layout.manifest(set))
    print(f"{len(frame)} files of {frame['label'].nunique()} classes in {plan.dataset.root}")
