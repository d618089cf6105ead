"""Whole shards of remote roots in a local folder, which all processes of a machine share.

A shard is kept under its SHA-256, which is checked as it arrives, so that datasets and versions of
them share what they have in common. A root is a folder of links with the names of its shards:
code that has `root / path` need not know of it. A link whose shard is not there leads to nothing;
`stage_missing` fetches it, whoever reads first.
"""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel

from densecl.datasets.storage.cache_room import (
    MODIFIED,
    check_fits,
    get_folder,
    get_limit,
    lock_names,
    remove_on_error,
    rename_partial,
    reserve,
)
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.open_files import FileIdentity
from densecl.datasets.storage.remote_store import RemoteStore
from densecl.datasets.storage.shard_index import IndexedFile, ShardIndex
from densecl.errors import DataError, RetryLater
from densecl.runtime.atomic_files import open_atomic_file

THREADS = 4  # shards that a process fetches at a time
CHUNK = 2**25  # bytes of a request: one of 4 MiB costs a shard four times as long
SOURCE_FILE = ".source.json"
Progress = Callable[[int, int], object]  # bytes that are there, and of all


class MirrorSource(BaseModel):
    """Where the files of a folder of links come from."""

    root: str
    index_file: str
    index: ShardIndex

    @cached_property
    def by_name(self) -> dict[str, IndexedFile]:
        return {file.name: file for file in self.index.all_files}


def create_mirror(root: str, index_file: Path, index: ShardIndex) -> Path:
    """The folder of links of a remote root; it is made once per root and content of its index."""
    source = MirrorSource(root=root, index_file=str(index_file), index=index)
    text = source.model_dump_json().encode()
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in root.partition("://")[2])
    mirror = get_folder() / "roots" / f"{slug[-40:]}-{hashlib.sha256(text).hexdigest()[:12]}"
    mirror.mkdir(parents=True, exist_ok=True)
    with lock_names():
        if (mirror / SOURCE_FILE).exists():
            return mirror
        for file in index.all_files:
            link = mirror / file.name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)  # of a process that was killed
            link.symlink_to(os.path.relpath(get_content(file).absolute(), link.parent.absolute()))
        with open_atomic_file(mirror / SOURCE_FILE) as out:
            out.write(text)
    return mirror


def read_source(mirror: Path) -> MirrorSource | None:
    """None if the folder is none of links."""
    if not mirror.absolute().is_relative_to(get_folder().absolute() / "roots"):
        return None
    try:
        return _read_source(mirror.absolute())
    except (FileNotFoundError, NotADirectoryError):
        return None


@lru_cache(64)
def _read_source(mirror: Path) -> MirrorSource:
    return MirrorSource.model_validate_json((mirror / SOURCE_FILE).read_bytes())


def find_shard(path: Path) -> Path | None:
    """The file of a remote root that a path is, or runs through; None for other paths."""
    roots, absolute = get_folder().absolute() / "roots", path.absolute()
    if not absolute.is_relative_to(roots):
        return None
    return next((p for p in (path, *path.parents) if _find_indexed(p)), None)


def find_staged(path: Path) -> FileIdentity | None:
    """A file of a remote root as it is once it is fetched, now or later; None for other files."""
    found = _find_indexed(path)
    return found and FileIdentity(path, found[1].bytes, MODIFIED * 10**9)


def stage_missing(path: Path) -> bool:
    """Fetch the file of a remote root that a path is, or runs through, unless it is there. False
    for other paths.
    """
    shard = find_shard(path)
    if shard and not shard.exists() and (found := _find_indexed(shard)):
        stage_file(*found)
    return shard is not None


def stage_shards(shards: Iterable[Path], progress: Progress | None = None) -> None:
    """Fetch all shards that are not there, several at a time; none of them is removed meanwhile.
    Files of local roots are left alone.

    CacheFullError, before anything is fetched, if the cache cannot hold them together.
    """
    found = [entry for path in shards if (entry := _find_indexed(path))]
    if not found:
        return
    check_fits({file.sha256: file.bytes for _, file in found}, get_limit())
    keep = {file.sha256 for _, file in found}
    done, total = 0, sum(file.bytes for _, file in found)
    with ThreadPoolExecutor(THREADS) as threads:
        jobs = [threads.submit(stage_file, source, file, keep) for source, file in found]
        try:
            for (_, file), job in zip(found, jobs, strict=True):
                job.result()
                done += file.bytes
                if progress:
                    progress(done, total)
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


def fetch_ahead(shards: Sequence[Path]) -> Iterator[Path]:
    """Each shard once it is there; the next ones are fetched meanwhile, if the cache can hold all:
    else they could take the place of one that is still to be read.
    """
    ahead = THREADS if fits_together(shards) else 1
    threads, jobs = ThreadPoolExecutor(THREADS), deque[tuple[Path, Future[bool]]]()
    try:
        for shard in shards:
            jobs.append((shard, threads.submit(stage_missing, shard)))
            if len(jobs) == ahead:
                yield _wait_for(*jobs.popleft())
        while jobs:
            yield _wait_for(*jobs.popleft())
    finally:
        # Not waited for: what an error leaves is closed by whichever thread collects it, which may
        # be one of these.
        threads.shutdown(wait=False, cancel_futures=True)


def _wait_for(shard: Path, job: Future[bool]) -> Path:
    job.result()
    return shard


def stage_file(source: MirrorSource, file: IndexedFile, keep: Collection[str] = ()) -> None:
    """Fetch a file unless it is there: under a name of its own, checked, then renamed."""
    content = get_content(file)
    content.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(content.with_suffix(".lock")):
        with suppress(FileNotFoundError):  # it is not there, or others remove it now
            os.utime(content, (time.time(), MODIFIED))
            return
        partial = content.with_suffix(".partial")
        with remove_on_error(partial):
            reserve(partial, file.bytes, {*keep, file.sha256})
            digest = copy_remote(RemoteStore(source.root, source.index.base), file.name, partial)
            if digest != file.sha256:
                raise DataError(
                    f"{to_printable(source.root)}: {to_printable(file.name)}: found SHA-256 "
                    f"{digest[:12]}..., expected {file.sha256[:12]}... of {source.index_file}: the "
                    "shard has changed, or was damaged on its way; put the old one back, or remove "
                    "the index, and `python -m steps plan` writes that of the new ones"
                )
            with lock_names():
                rename_partial(partial, content)


def check_content(path: Path) -> None:
    """Raise RetryLater unless a fetched shard still has its SHA-256; it is removed. Without effect
    for one that has made room for others since.
    """
    found = _find_indexed(path)
    with suppress(FileNotFoundError), path.open("rb") as file:
        if found and hashlib.file_digest(file, "sha256").hexdigest() != found[1].sha256:
            remove_shards([path])
            raise RetryLater(
                f"{get_content(found[1])}: found other bytes than were fetched, expected those of "
                f"the shard {to_printable(found[1].name)}: it was damaged here, and is removed; "
                "the same command fetches it again"
            )


def copy_remote(store: RemoteStore, name: str, target: Path) -> str:
    """Copy a file of a store and return the SHA-256 of what came."""
    digest = hashlib.sha256()
    with target.open("r+b") as out:  # first: its errors are not the store's
        for chunk in _read_chunks(store, name):
            digest.update(chunk)
            out.write(chunk)
        out.truncate()
        os.fsync(out.fileno())
    return digest.hexdigest()


def _read_chunks(store: RemoteStore, name: str) -> Iterator[bytes]:
    try:
        with store.open(name) as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError:
        raise DataError(
            f"{to_printable(store.root)}: found no {to_printable(name)}, expected it as in the "
            "index; put it back, or remove the index, and `python -m steps plan` writes a new one"
        ) from None


def remove_shards(shards: Iterable[Path]) -> None:
    """Make room: fetched shards of remote roots are removed, and fetched again if need be. Who
    still reads one keeps it until then.
    """
    for path in shards:
        if found := _find_indexed(path):
            with lock_names():
                get_content(found[1]).unlink(missing_ok=True)


def get_content(file: IndexedFile) -> Path:
    return get_folder() / "content" / file.sha256


def _find_indexed(path: Path) -> tuple[MirrorSource, IndexedFile] | None:
    """Source and index entry of a link; None for other paths."""
    roots = get_folder().absolute() / "roots"
    if not path.absolute().is_relative_to(roots):
        return None
    folder, *parts = path.absolute().relative_to(roots).parts or ("",)
    source, name = read_source(roots / folder), "/".join(parts)
    if source is None:
        return None
    file = source.by_name.get(name)
    return (source, file) if file else None


def find_sha256(shard: Path) -> str | None:
    """Of a shard of a remote root, by its index; None for other files."""
    found = _find_indexed(shard)
    return found and found[1].sha256


def fits_together(shards: Iterable[Path]) -> bool:
    """Whether the cache can hold all of these; of local roots, which need none, always."""
    found = [entry for path in shards if (entry := _find_indexed(path))]
    return not found or sum(file.bytes for _, file in found) <= get_limit()
