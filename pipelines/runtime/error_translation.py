"""What ZenML, DVC and SQLite raise where a disk is full or read-only, or a store is damaged, as a
line of ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from densecl import paths
from densecl.errors import DenseclError, Stopped
from densecl.runtime.cli import REFUSED

AGAIN = "nothing is lost: make room or allow writing, then run the same command again"
BUSY = "nothing is lost: run the same command again when no other process holds it"
LOST = (
    f"put {paths.ZENML} back from a backup, or remove it: of "
    f"what there is only the history of runs is lost"
)
# SQLite's own words of what passes -> what to do; and of a file that is damaged.
PASSES = {
    "database or disk is full": AGAIN,
    "attempt to write a readonly database": AGAIN,
    "disk I/O error": AGAIN,
    "unable to open database file": AGAIN,
    "database is locked": BUSY,
}
DAMAGED = ("file is not a database", "database disk image is malformed")


@contextmanager
def translated() -> Iterator[None]:
    """What a block raises is one line, where it is the disk's or the store's doing; anything else
    goes on as it is.
    """
    try:
        yield
    except Exception as error:
        found = told(error)
        if found is None:
            raise
        raise found from None


def told(error: BaseException) -> DenseclError | None:
    """Stopped where a disk refused, DenseclError where ZenML's store is damaged; None where it was
    something else.
    """
    if isinstance(error, DenseclError):  # told already, whatever it came from
        return None
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.errno in REFUSED:
            where = f"{cause.filename}: " if cause.filename else ""
            return Stopped(f"{where}{cause.strerror}; {AGAIN}")
        if isinstance(cause, sqlite3.Error) and (
            found := sqlite(f"ZenML's store in {paths.ZENML}", str(cause), LOST)
        ):
            return found
    return None


def sqlite(where: str, text: str, lost: str) -> DenseclError | None:
    """What SQLite's words mean for the store `where`; `lost`: what to do about a damaged one."""
    for words, advice in PASSES.items():
        if words in text:
            return Stopped(f"{where}: {words}; {advice}")
    for words in DAMAGED:
        if words in text:
            return DenseclError(f"{where}: {words}; {lost}")
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then what it came from."""
    seen: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in seen:
        yield each
        seen.append(each)
        each = each.__cause__ or each.__context__
