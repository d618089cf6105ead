"""Translate errors of ZenML, DVC and SQLite on a full or read-only disk, or on a corrupt store."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from densecl import paths
from densecl.errors import DenseclError, RetryLater
from densecl.runtime.cli import RETRYABLE_ERRNOS, shorten_line

RETRY_ADVICE = "nothing is lost: make room or allow writing, then run the same command again"
BUSY_ADVICE = "nothing is lost: run the same command again when no other process holds it"
DAMAGED_ADVICE = (
    f"put {paths.ZENML_STORE} back from a backup, or remove it: of "
    f"what there is only the history of runs is lost"
)
OPEN_FAILED = "unable to open database file"
MAX_ROOT = 400  # bytes of the project's path, which leave room for the names of stores in it
# SQLite's own words of what passes -> what to do; and of a file that is damaged.
TRANSIENT_ERRORS = {
    "database or disk is full": RETRY_ADVICE,
    "attempt to write a readonly database": RETRY_ADVICE,
    "disk I/O error": RETRY_ADVICE,
    OPEN_FAILED: RETRY_ADVICE,
    "database is locked": BUSY_ADVICE,
}
DAMAGE_MESSAGES = ("file is not a database", "database disk image is malformed")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise such errors as one line; other errors are raised unchanged."""
    try:
        yield
    except Exception as error:
        if (translation := translate_error(error)) is None:
            raise
        raise translation from None


def translate_error(error: BaseException) -> DenseclError | None:
    """RetryLater for a disk error, DenseclError for a corrupt ZenML store, otherwise None."""
    if isinstance(error, DenseclError):  # already a one-line message
        return None
    from dvc.lock import LockError

    for cause in iter_causes(error):
        if isinstance(cause, LockError):
            return RetryLater(explain_lock(cause))
        if isinstance(cause, OSError) and cause.errno in RETRYABLE_ERRNOS:
            prefix = f"{cause.filename}: " if cause.filename else ""
            return RetryLater(f"{prefix}{cause.strerror}; {RETRY_ADVICE}")
        if isinstance(cause, sqlite3.Error) and (
            translation := translate_sqlite(
                f"ZenML's store in {paths.ZENML_STORE}", str(cause), DAMAGED_ADVICE
            )
        ):
            return translation
    return None


def explain_lock(error: BaseException) -> str:
    """DVC's words on a held lock without its advice, which is to remove the lock."""
    reason = str(error).partition("\n\n")[0].partition(". ")[0]
    return f"{' '.join(reason.split())}; run again when the other process has ended"


def translate_sqlite(store: str, text: str, damaged_advice: str) -> DenseclError | None:
    """Explain an SQLite error of `store`; `damaged_advice` says what to do about a corrupt one."""
    if OPEN_FAILED in text and (problem := find_long_root(store)):
        return problem
    for phrase, advice in TRANSIENT_ERRORS.items():
        if phrase in text:
            return RetryLater(f"{store}: {phrase}; {advice}")
    for phrase in DAMAGE_MESSAGES:
        if phrase in text:
            return DenseclError(f"{store}: {phrase}; {damaged_advice}")
    return None


def find_long_root(store: str) -> DenseclError | None:
    """What keeps SQLite from opening `store` in a project whose path is too long."""
    root = Path.cwd()
    length = len(os.fsencode(root))
    if length <= MAX_ROOT:
        return None
    return DenseclError(
        f"{store}: the project's path is {length} bytes long ({shorten_line(root)}), and SQLite "
        f"opens no file whose path is longer than 512; move the project to a path of at most "
        f"{MAX_ROOT}"
    )


def iter_causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then its causes."""
    current: BaseException | None = error
    visited: list[BaseException] = []
    while current is not None and current not in visited:
        yield current
        visited.append(current)
        current = current.__cause__ or current.__context__
