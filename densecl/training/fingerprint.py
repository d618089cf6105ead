"""A hash of all that decides the result of a training run. Imports no torch."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import densecl
from densecl.artifacts import TrainPlan

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
    return hash_code(prefix=f"{seed}\0{plan.model_dump_json()}\0".encode() + manifest)


def hash_code(parts: Iterable[str] = TRAINING_CODE, prefix: bytes = b"") -> str:
    """16 hex digits of `prefix` and of the package's modules in `parts`."""
    digest, package = hashlib.sha256(prefix), Path(densecl.__file__).parent
    for part in parts:
        path = package / part
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
