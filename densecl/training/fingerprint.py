"""A hash of all that decides the result of a training run. Imports no torch."""

from densecl.artifacts import TrainPlan
from densecl.runtime.source_hash import hash_sources

# Files of the package, and folders with all their modules.
TRAINING_CODE = (
    "contrast",
    "datasets/storage",
    "datasets/views",
    "distributed.py",
    "metrics.py",
    "network",
    "seeding.py",
    "training",
)


def compute_fingerprint(plan: TrainPlan, seed: int, manifest: bytes) -> str:
    """16 hex digits of params, seed, data and training code."""
    prefix = f"{seed}\0{plan.model_dump_json()}\0".encode() + manifest
    return hash_sources(TRAINING_CODE, prefix)
