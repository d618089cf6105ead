"""Append-only CSV logs; a record is appended completely or not at all."""

import csv
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from densecl.artifacts import Artifact
from densecl.errors import DenseclError

R = TypeVar("R", bound=Artifact)


def append_record(path: Path, record: Artifact) -> None:
    """Append one record and sync it to disk; a new file gets a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    check_plain(path)
    # One line per record, also for who reads it with `tail`.
    row = {
        k: " ".join(v.split()) if isinstance(v, str) else v for k, v in record.model_dump().items()
    }
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        elif last := path.read_bytes().rpartition(b"\n")[2]:
            # Ends the incomplete line that a full disk left, and its quotes.
            file.write('"\n' if last.count(b'"') % 2 else "\n")
        writer.writerow(row)


def read_records(path: Path, record_type: type[R]) -> list[R]:
    """All valid records in order, skipping incomplete lines (a full disk), which may end inside a
    character or quotes; empty without a file.
    """
    if not path.exists():
        return []
    check_plain(path)
    # Each line by itself: quotes that one does not close would take the next ones in.
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    rows = [_split_line(line) for line in lines]
    names = list(record_type.model_fields)
    header = rows[0] if set(rows[0]) <= set(names) else names  # of an earlier version it is shorter
    records: list[R] = []
    for cells in rows:
        keys = header if len(cells) == len(header) else names
        with suppress(ValidationError, ValueError):  # the latter of another number of cells
            row = {k: v for k, v in zip(keys, cells, strict=True) if v}  # else the default
            records.append(record_type.model_validate(row))
    return records


def check_plain(path: Path) -> None:
    """DenseclError for what is no file: a pipe would wait for its other end."""
    if path.exists() and not path.is_file():
        raise DenseclError(f"{path}: found no plain file; move it away, records are kept here")


def _split_line(line: str) -> list[str]:
    """The cells of a line; none of one that is no CSV."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []
