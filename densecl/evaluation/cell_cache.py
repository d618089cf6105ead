"""Kept results of evaluation, in a folder or in any store that fsspec knows, which machines may
share.

An entry is one file: the sha256 of its content in hexadecimal, a line break, the content. Losing
entries, or the whole store, costs time only.
"""

import contextlib
import hashlib
import sys
import uuid
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

DIGEST_BYTES = 64  # hexadecimal digits of a sha256


class CellCache:
    """Contents by key. A store that cannot be read is reported once and not asked again; one that
    cannot be written is still read.
    """

    def __init__(self, url: str | None) -> None:
        """`url`: a folder or an fsspec URL; None keeps nothing."""
        self._url, self._store, self._folder, self._is_writable = url, None, "", True
        if url is not None:
            try:
                self._store, self._folder = _open_store(url)
            except Exception as error:
                self._give_up(error)

    def read(self, key: str) -> bytes | None:
        """The content of an entry; None where there is none. A damaged one is reported."""
        if self._store is None:
            return None
        path = f"{self._folder}/{key}"
        try:
            entry = self._store.cat_file(path)
        except FileNotFoundError:
            return None
        except Exception as error:
            self._give_up(error)
            return None
        digest, content = entry[:DIGEST_BYTES], entry[DIGEST_BYTES + 1 :]
        if hashlib.sha256(content).hexdigest().encode() == digest:
            return bytes(content)
        _print_warning(f"{path}: damaged, found other bytes than its sha256 says; computed again")
        return None

    def write(self, key: str, content: bytes) -> None:
        """Keep a content; readers see a whole entry or none."""
        if self._store is None or not self._is_writable:
            return
        digest = hashlib.sha256(content).hexdigest().encode()
        try:
            self._store.makedirs(self._folder, exist_ok=True)
            _write_file(self._store, f"{self._folder}/{key}", digest + b"\n" + content)
        except Exception as error:
            self._is_writable = False
            self._report(error, "be written", "nothing more is kept in it")

    def _give_up(self, error: Exception) -> None:
        self._store = None
        self._report(error, "be used", "continuing without it")

    def _report(self, error: Exception, action: str, consequence: str) -> None:
        """Every kind of store has its own errors, and none of them may stop an evaluation."""
        reason = " ".join(str(error).split())[:200]
        _print_warning(
            f"evaluate.cell_cache: {self._url} cannot {action} ({type(error).__name__}: {reason}); "
            f"{consequence}"
        )


def _open_store(url: str) -> tuple[Any, str]:
    from fsspec.core import url_to_fs

    store, folder = url_to_fs(url)
    return store, folder.rstrip("/")


def _write_file(store: Any, path: str, content: bytes) -> None:
    """Object stores put a file as a whole; on a disk, it is renamed once it is complete."""
    if not isinstance(store, LocalFileSystem):
        store.pipe_file(path, content)
        return
    partial = f"{path}.{uuid.uuid4().hex}.partial"  # another process may write the same entry
    try:
        store.pipe_file(partial, content)
        Path(partial).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            store.rm_file(partial)
        raise


def _print_warning(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
