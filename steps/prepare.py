"""List a set: one manifest row an image, with content hash, size and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

from densecl import layout
from densecl.datasets.manifest import class_list, scan, write_manifest
from densecl.hardware import workers
from densecl.records import SetPlan, read_json


def main(set: str) -> None:
    """Write data/manifests/<set>.parquet."""
    plan = read_json(SetPlan, layout.plan(set))
    frame = scan(
        set, Path(plan.dataset.root), plan.dataset.layout, class_list(Path(plan.train_root)), max(1, workers())
    )
    write_manifest(frame, layout.manifest(set))
    print(f"{len(frame)} files of {frame['label'].nunique()} classes in {plan.dataset.root}")
