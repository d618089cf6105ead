"""Pack a dataset into tars of webdataset of about 150 MB, which `layout: webdataset` reads."""

from pathlib import Path

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json
from densecl.config.params import TRAIN_SET
from densecl.datasets.pack import pack_images
from densecl.datasets.storage.manifest import read_classes, read_manifest, read_missing_reason
from densecl.datasets.storage.remote_root import locate_root
from densecl.errors import DenseclError
from densecl.runtime.atomic_files import create_atomic_folder


def main(dataset: str, folder: str) -> None:
    """Write the images of the dataset's manifest, usable or not, to a new folder."""
    manifest, target = paths.manifest_file(dataset), Path(folder)
    if not manifest.exists():
        raise DenseclError(f"{manifest}: no such file; `dvc repro prepare@{dataset}` writes it")
    if reason := read_missing_reason(manifest):
        raise DenseclError(f"{dataset}: nothing to pack: {reason}")
    if target.exists():
        raise DenseclError(f"{target}: exists; expected the name of a new folder")
    plan = read_json(DatasetPlan, paths.plan_file(dataset))
    classes = (
        list(plan.groups.members) if plan.groups else read_classes(paths.manifest_file(TRAIN_SET))
    )
    with create_atomic_folder(target) as partial:
        shards = pack_images(
            dataset, read_manifest(manifest), classes, locate_root(plan.dataset), partial
        )
    images, size = sum(shard.images for shard in shards), sum(shard.bytes for shard in shards)
    print(f"{dataset}: {images:,} images in {len(shards):,} shards of {size:,} bytes in {target}")
