"""The room of the cache of shards: its folder and size, what is in it, and who may change names.

DENSECL_SHARD_CACHE: the folder, on a disk of the machine (default cache/shards).
DENSECL_SHARD_CACHE_GB: its size in 10^9 bytes (default: what it holds and 95 % of what is free).
What was used longest ago makes room.
"""

import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from densecl import paths
from densecl.errors import DataError

FOLDER_ENV, SIZE_ENV = "DENSECL_SHARD_CACHE", "DENSECL_SHARD_CACHE_GB"
FREE_SHARE = 0.95  # of the free space, unless SIZE_ENV says how much
WAIT = 0.1  # s
# The mtime of every shard, so that its index is known again after it was removed and fetched.
MODIFIED = 10**9  # s


class CacheFullError(DataError):
    """Shards that the cache cannot hold together."""


def get_folder() -> Path:
    return Path(os.environ.get(FOLDER_ENV) or paths.SHARDS)


def get_limit() -> int:
    """Bytes that the cache may hold."""
    return find_limit(count_bytes())


def find_limit(held: int) -> int:
    """Bytes that the cache may hold, which holds some now."""
    text = os.environ.get(SIZE_ENV)
    if text:
        try:
            size = float(text)
        except ValueError:
            size = 0.0
        if not 0 < size < 1e9:
            raise DataError(f"{SIZE_ENV}: found {text!r}, expected a number of 10^9 bytes above 0")
        return int(size * 1e9)
    folder = get_folder().absolute()
    folder = next(place for place in (folder, *folder.parents) if place.is_dir())
    return held + int(FREE_SHARE * shutil.disk_usage(folder).free)


def check_fits(sizes: dict[str, int], limit: int) -> None:
    """CacheFullError if shards of these sizes, by SHA-256, do not fit together."""
    if (total := sum(sizes.values())) > limit:
        raise CacheFullError(
            f"{get_folder()}: found room for {limit / 1e9:,.3g} GB of shards, expected "
            f"{total / 1e9:,.3g} GB; free space, name another disk in {FOLDER_ENV}, raise "
            f"{SIZE_ENV}, or set data.order: shards, which needs two blocks of the train set"
        )


def lock_names() -> FileLock:
    """Held while names in the cache change, for a moment, so that they can be counted."""
    return FileLock(get_folder() / ".lock")


@contextmanager
def remove_on_error(partial: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with lock_names():
            partial.unlink(missing_ok=True)
        raise


def rename_partial(partial: Path, content: Path) -> None:
    os.utime(partial, (time.time(), MODIFIED))
    partial.replace(content)


def reserve(partial: Path, size: int, keep: Collection[str]) -> None:
    """An empty file of this size, once there is room for it beside all others."""
    while not _try_reserve(partial, size, keep):
        time.sleep(WAIT)  # others fetch shards, which can be removed once they are there


def _try_reserve(partial: Path, size: int, keep: Collection[str]) -> bool:
    """False if what is on its way leaves no room now; CacheFullError if what is kept does."""
    with lock_names():
        partial.unlink(missing_ok=True)  # of a process that was killed
        files = _stat_content()
        used = sum(status.st_size for status in files.values())
        limit = find_limit(used)
        shards = (path for path in files if not path.suffix and path.name not in keep)
        for path in sorted(shards, key=lambda path: files[path].st_atime_ns):
            if used + size > limit:
                used -= files[path].st_size
                path.unlink(missing_ok=True)
        if used + size > limit:
            if _drop_abandoned(partial):
                return False
            check_fits({"kept": used, "new": size}, limit)
        with partial.open("wb") as file:
            if size:  # no sparse file: others count what is free
                os.posix_fallocate(file.fileno(), 0, size)
        return True


def _drop_abandoned(own: Path) -> bool:
    """Remove what processes left that were killed; whether there are, or were, other files on their
    way.
    """
    others = [path for path in own.parent.glob("*.partial") if path != own]
    for path in others:
        with suppress(Timeout), FileLock(path.with_suffix(".lock"), timeout=0):
            path.unlink(missing_ok=True)
    return bool(others)


def count_bytes() -> int:
    """Bytes of the files in the cache, of those that are on their way too."""
    return sum(status.st_size for status in _stat_content().values())


def _stat_content() -> dict[Path, os.stat_result]:
    """The files in the cache; looked for again if a name is changed meanwhile."""
    folder = get_folder() / "content"
    while folder.is_dir():
        with suppress(FileNotFoundError):
            return {path: path.stat() for path in folder.iterdir()}
    return {}
