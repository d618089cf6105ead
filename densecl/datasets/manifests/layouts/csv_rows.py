"""Rows of a CSV that a user brings along."""

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from densecl.datasets.storage.filenames import to_printable
from densecl.errors import DataError


def iter_csv_rows(path: Path, text: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """The last line of each row, and its values in `columns`; "" where a row has too few.

    DataError for a missing column, and for text that is no CSV.
    """
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        names = rows.fieldnames or ["none"]
        if not set(columns) <= set(names):
            raise DataError(
                f"{to_printable(path)}: found columns {to_printable(', '.join(names))[:200]}, "
                f"expected {' and '.join(columns)}"
            )
        for row in rows:
            yield rows.line_num, [row[column] or "" for column in columns]
    except csv.Error as error:
        raise DataError(
            f"{to_printable(path)}: line {rows.line_num + 1}: found no CSV ({error}); expected as "
            "many quotes that open as close"
        ) from None
