"""A full disk or a damaged store is one line, whichever library met it first."""

import errno
import sqlite3

import pytest
from dvc.lock import FAILED_TO_LOCK_MESSAGE, LockError
from sqlalchemy.exc import OperationalError

from densecl.errors import EXIT_RETRY, EXIT_USER_ERROR, DenseclError, RetryLater
from pipelines.runtime.error_translation import iter_causes, translate_error, translate_errors


def wrapped(cause: Exception) -> Exception:
    """As SQLAlchemy hands it on: its own text holds the whole statement."""
    try:
        raise OperationalError("UPDATE step_run SET ...", {}, cause) from cause
    except OperationalError as error:
        return error


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            wrapped(sqlite3.OperationalError("database or disk is full")),
            EXIT_RETRY,
            "disk is full; nothing is lost: make room",
        ),
        (
            wrapped(sqlite3.OperationalError("attempt to write a readonly database")),
            EXIT_RETRY,
            "readonly database; nothing is lost",
        ),
        (
            wrapped(sqlite3.OperationalError("database is locked")),
            EXIT_RETRY,
            "locked; .* when no other process holds it",
        ),
        (
            wrapped(sqlite3.DatabaseError("file is not a database")),
            EXIT_USER_ERROR,
            r"put \.zenml back from a backup, or remove it",
        ),
        (
            wrapped(OSError(errno.ENOSPC, "No space left on device", "x.db")),
            EXIT_RETRY,
            "^x.db: No space left on device; nothing",
        ),
    ],
)
def test_what_the_disk_or_the_store_does_is_one_line(error, status, said):
    with pytest.raises(DenseclError, match=said) as found, translate_errors():
        raise error
    assert found.value.status == status
    assert "\n" not in str(found.value)
    assert "UPDATE" not in str(found.value)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a fault"),
        wrapped(sqlite3.OperationalError("no such table: step_run")),
        OSError(errno.ENOENT, "No such file", "x"),
    ],
)
def test_a_fault_of_the_program_stays_one(error):
    with pytest.raises(type(error)) as found, translate_errors():
        raise error
    assert found.value is error


def test_a_one_line_error_is_not_translated_again():
    error = RetryLater("train@none-0: stopped")
    error.__context__ = OSError(errno.ENOSPC, "No space left on device")
    assert translate_error(error) is None


def test_causes_in_a_circle_end():
    first, second = ValueError("first"), OSError(28, "No space left on device")
    first.__cause__, second.__context__ = second, first
    assert list(iter_causes(first)) == [first, second]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FAILED_TO_LOCK_MESSAGE, "Unable to acquire lock"),
        (
            "'data' is busy, it is being blocked by:\n  (PID 7): dvc repro\n\n"
            "If there are no processes with such PIDs, you can manually remove 'rwlock'",
            "'data' is busy, it is being blocked by: (PID 7): dvc repro",
        ),
    ],
)
def test_a_held_lock_of_dvc_is_told_without_its_advice_to_remove_it(text, reason):
    with pytest.raises(RetryLater) as caught, translate_errors():
        raise LockError(text)
    assert str(caught.value) == f"{reason}; run again when the other process has ended"


def test_a_path_that_sqlite_cannot_open_is_no_full_disk(tmp_path, monkeypatch):
    folder = tmp_path / ("x" * 200) / ("y" * 200)
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    match = "SQLite opens no file whose path is longer"
    with pytest.raises(DenseclError, match=match) as caught, translate_errors():
        raise sqlite3.OperationalError("unable to open database file")
    assert caught.value.status == 2
