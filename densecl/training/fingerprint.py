"""What decides a training, as a few hex digits. Imports no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import densecl
from densecl.artifacts import TrainPlan

# Of the package: files, and folders with all their modules.
TRAINING_CODE = (
    "config/params.py",
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
    """16 hex digits of all that decides a training: params, seed, data and the training code."""
    return _hash_modules(f"{seed}\0{plan.model_dump_json()}\0".encode() + manifest, TRAINING_CODE)


def hash_code(parts: Iterable[str] = TRAINING_CODE) -> str:
    """16 hex digits of the package's modules in `parts`."""
    return _hash_modules(b"", parts)


def _hash_modules(head: bytes, parts: Iterable[str]) -> str:
    digest, package = hashlib.sha256(head), Path(densecl.__file__).parent
    for part in parts:
        for source in (
            sorted((package / part).rglob("*.py"))
            if (package / part).is_dir()
            else [package / part]
        ):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
