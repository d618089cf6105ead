"""Records kept as lines of a CSV file: one is added whole or not at all, whatever kills the
writer.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from densecl.artifacts import Artifact

R = TypeVar("R", bound=Artifact)


def append_record(path: Path, record: Artifact) -> None:
    """One line more, on the disk when this returns; a header before the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(handle).st_size
        torn = (
            size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        )  # by a full disk: the half line ends here
        text = io.StringIO(newline="")
        # A line a record also for who reads it with `tail`.
        row = {
            k: " ".join(v.split()) if isinstance(v, str) else v
            for k, v in record.model_dump().items()
        }
        writer = csv.DictWriter(text, list(row), lineterminator="\n")
        if size == 0:
            writer.writeheader()
        writer.writerow(row)
        os.write(
            handle, (b"\n" if torn else b"") + text.getvalue().encode()
        )  # one call: a kill comes before or after it
        os.fsync(handle)
    finally:
        os.close(handle)


def read_records(path: Path, record_type: type[R]) -> list[R]:
    """The records in order; lines that are none, as a full disk leaves them, are left out; no file:
    none.
    """
    if not path.exists():
        return []
    records = []
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            try:
                records.append(
                    record_type.model_validate(
                        {
                            k: _parse_cell(v, record_type.model_fields[k].annotation)
                            for k, v in row.items()
                        }
                    )
                )
            except (KeyError, ValidationError):
                continue
    return records


def _parse_cell(cell: str | None, annotation: object) -> str | None:
    """An empty cell is None wherever None may stand."""
    return cell if cell or annotation is str else None
