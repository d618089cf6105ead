"""Append-only CSV logs; a record is appended completely or not at all."""

import csv
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from densecl.artifacts import Artifact

R = TypeVar("R", bound=Artifact)


def append_record(path: Path, record: Artifact) -> None:
    """Append one record and sync it to disk; a new file gets a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One line per record, also for who reads it with `tail`.
    row = {
        k: " ".join(v.split()) if isinstance(v, str) else v for k, v in record.model_dump().items()
    }
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        elif not path.read_bytes().endswith(b"\n"):
            file.write("\n")  # ends the incomplete line that a full disk left
        writer.writerow(row)


def read_records(path: Path, record_type: type[R]) -> list[R]:
    """All valid records in order, skipping incomplete lines (a full disk); empty without a file."""
    records: list[R] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                with suppress(ValidationError):
                    filled = {k: v for k, v in row.items() if v}  # an empty cell is the default
                    records.append(record_type.model_validate(filled))
    return records
