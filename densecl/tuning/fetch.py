"""Training images of a sweep that lie in a store."""

from densecl import paths
from densecl.config.params import TRAIN_SET
from densecl.datasets.storage.manifest import read_manifest
from densecl.datasets.storage.usable_images import fetch_images
from densecl.tuning.records import SweepPlan


def fetch_training_images(plan: SweepPlan) -> None:
    """Fetch what this machine lacks, unless trials fetch it block by block."""
    if plan.index and plan.data.order == "images":
        manifest = read_manifest(paths.sweep_manifest(plan.name), ("path",))
        fetch_images(TRAIN_SET, plan.images, manifest)
