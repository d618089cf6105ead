"""Descriptors of archives, opened when first read: thousands of shards may be read in turn."""

import os
import resource
import weakref
from itertools import islice
from pathlib import Path
from typing import NamedTuple

SHARE_OF_LIMIT = 2  # half of the descriptors that a process may have; never fewer than the least
MAX_OPEN, LEAST_OPEN = 8192, 8
REMOVED_SHARE = 8  # one in so many of the open files may be removed, and still take its space


class FileIdentity(NamedTuple):
    """Identity of a file; one that has been replaced since has another."""

    path: Path
    size: int
    modified_ns: int


def identify_file(path: Path) -> FileIdentity:
    status = path.stat()
    return FileIdentity(path, status.st_size, status.st_mtime_ns)


class OpenFile:
    """A read-only descriptor, which is closed with the last reference to it."""

    def __init__(self, identity: FileIdentity) -> None:
        self.descriptor = os.open(identity.path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.descriptor)
        status = os.fstat(self.descriptor)
        if (status.st_size, status.st_mtime_ns) != identity[1:]:
            raise OSError(5, "changed since it was listed", str(identity.path))

    def is_removed(self) -> bool:
        """Whether no folder holds the file any more: its space is free once it is closed."""
        return os.fstat(self.descriptor).st_nlink == 0


class OpenFiles:
    """The files that were opened last, at most `limit`. Loader processes that are forked share
    them: `pread` moves no position.

    It has no lock, which a fork could copy while it is held. Threads may open a file twice; one
    that is dropped while it is read is closed afterwards.
    """

    def __init__(self, limit: int | None = None) -> None:
        self.limit, self.files = limit or count_descriptors(), dict[FileIdentity, OpenFile]()
        self.opened = 0  # since removed ones were looked for

    def read(self, identity: FileIdentity, size: int, offset: int) -> bytes:
        """At most `size` bytes from `offset` on; OSError, also if the file has changed."""
        file = self.files.get(identity)
        if file is None:
            file = OpenFile(identity)
            self._make_room()
            self.files[identity] = file
        return os.pread(file.descriptor, size, offset)

    def _make_room(self) -> None:
        """Let go of what was opened first, and now and then of what was removed."""
        self.opened += 1
        if self.opened * REMOVED_SHARE >= len(self.files):
            self.opened = 0
            for identity, file in list(self.files.items()):
                if file.is_removed():
                    self.files.pop(identity, None)
        # No thread changes the dictionary while tuple() takes from it.
        for identity in tuple(islice(self.files, max(0, len(self.files) - self.limit + 1))):
            self.files.pop(identity, None)


def count_descriptors() -> int:
    """How many files may be held open, by the limit of this process (`ulimit -n`)."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = MAX_OPEN if soft == resource.RLIM_INFINITY else soft // SHARE_OF_LIMIT
    return max(LEAST_OPEN, min(MAX_OPEN, allowed))


OPEN_FILES = OpenFiles()
