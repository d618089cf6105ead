"""A missing dataset: a manifest without rows that gives the reason."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from densecl.datasets.storage.manifest import SCHEMA
from densecl.runtime.atomic_files import open_atomic_file

REASON_KEY = b"absent"


def write_missing_manifest(path: Path, reason: str) -> None:
    """Write a manifest without rows that carries the reason; byte-stable, atomic."""
    with open_atomic_file(path) as file:
        pq.write_table(SCHEMA.empty_table().replace_schema_metadata({REASON_KEY: reason}), file)


def read_missing_reason(path: Path) -> str:
    """Why the manifest has no rows; "" where it was written from a dataset."""
    metadata: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    return metadata.get(REASON_KEY, b"").decode("utf-8")
