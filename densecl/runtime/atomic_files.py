"""Atomic files and folders: written under a temporary name, synced to disk, then renamed.

Nothing is renamed over what is of another kind: /dev/null would become a file.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from densecl.errors import DenseclError


@contextmanager
def open_atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block ends without an exception.

    DenseclError if `path` is, or leads to, a folder, a device, a pipe or an open file of a process
    (/dev/stdout).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    for place in (path, partial):
        is_open_file = place.is_symlink() and place.readlink().is_relative_to("/proc")
        if (place.exists() and not place.is_file()) or is_open_file:
            raise DenseclError(
                f"{place}: found no plain file, and a file is written here; name another place, or "
                "move it away if it is yours"
            )
    partial.unlink(missing_ok=True)  # left by a kill, or a link through which would be written
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    partial.replace(path)
    fsync_path(path.parent)


@contextmanager
def create_atomic_folder(path: Path) -> Iterator[Path]:
    """Create a folder that replaces `path` when the block ends without an exception.

    DenseclError if `path` is anything else than a folder.
    """
    partial = path.with_name(path.name + ".partial")
    for place in (path, partial):
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise DenseclError(f"{place}: found no folder; move it away, a folder is written here")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for entry in (*partial.rglob("*"), partial):
            fsync_path(entry)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)
    partial.rename(path)
    fsync_path(path.parent)


def fsync_path(path: Path) -> None:
    """Sync the content of a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
