"""Look at the images of shards in a store before `prepare` does, on this machine or, as the jobs of
an engine, on others: what is found is kept for it.
"""

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json
from densecl.datasets.manifests.kept_scans import list_unscanned
from densecl.datasets.manifests.layouts.shard_images import iter_shard_images
from densecl.datasets.manifests.scan import inspect_images
from densecl.datasets.storage.remote_root import locate_root
from densecl.datasets.storage.remote_store import is_remote
from densecl.errors import DataError
from densecl.runtime.hardware import count_workers
from steps.prepare import fetch_shards, show_images


def main(dataset: str) -> None:
    """Keep what the shards of a dataset hold, and what is found of each image in them, of all
    classes.
    """
    plan = read_json(DatasetPlan, paths.plan_file(dataset))
    if not is_remote(plan.dataset.root):
        raise DataError(
            f"{dataset}: found root {plan.dataset.root}, expected shards in a store: only what is "
            "known of these by their SHA-256 is kept; run prepare"
        )
    root = locate_root(plan.dataset)
    images = [
        f"{shard.relative_to(root).as_posix()}/{name}"
        for shard, names in iter_shard_images(plan.dataset)
        for name in names
    ]
    unscanned = list_unscanned(root, images, plan.exif)
    fetch_shards(dataset, unscanned)
    with show_images(dataset) as progress:
        workers = max(1, count_workers())
        for _ in inspect_images(root, images, workers, progress, plan.exif, unscanned):
            pass
    known = len(images) - len(unscanned)
    print(f"{dataset}: {len(unscanned):,} images scanned, {known:,} known already")
