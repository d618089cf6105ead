"""A set that is not there, as a manifest without rows that says why."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from densecl.datasets.storage.manifest import SCHEMA

KEY = b"absent"


def write_absent(path: Path, reason: str) -> None:
    """Manifest without rows that carries the reason; byte-stable, appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    pq.write_table(SCHEMA.empty_table().replace_schema_metadata({KEY: reason}), partial)
    partial.replace(path)


def absence(path: Path) -> str:
    """Why the manifest has no rows; "" where it was written from a set."""
    found: dict[bytes, bytes] = pq.read_schema(path).metadata or {}
    return found.get(KEY, b"").decode("utf-8")
