"""A remote root: its index, and the folder through which its shards are read."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from filelock import FileLock

from densecl.config.data_params import DatasetParams
from densecl.datasets.storage.cache_room import (
    count_bytes,
    find_limit,
    get_folder,
    lock_names,
    remove_on_error,
    rename_partial,
)
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.remote_store import RemoteStore, is_remote
from densecl.datasets.storage.shard_cache import copy_remote, create_mirror, get_content
from densecl.datasets.storage.shard_index import (
    INDEX_FILE,
    IndexedFile,
    ShardIndex,
    check_names,
    parse_index,
    read_index,
    write_index,
)
from densecl.errors import DataError

SHARD_SUFFIXES = (".tar", ".parquet")
Progress = Callable[[int, int], object]


def locate_root(source: DatasetParams) -> Path:
    """Where the images of a dataset are read: its root, or the folder of links of a remote one."""
    return locate_indexed(source.root, source.tracked_by)


def locate_indexed(root: str, index_file: str) -> Path:
    """As `locate_root`; the index is that of a remote root."""
    if not is_remote(root):
        return Path(root)
    path = Path(index_file)
    if (index := read_index(path)) is None:
        raise DataError(
            f"{to_printable(path)}: no index of {to_printable(root)}; "
            "`python -m steps plan` writes it"
        )
    return create_mirror(root, path, index)


def locate_source(source: DatasetParams) -> DatasetParams:
    """The dataset as if its root were local."""
    return source.model_copy(update={"root": os.fspath(locate_root(source))})


def update_index(source: DatasetParams, progress: Progress | None = None) -> ShardIndex:
    """The index of a remote root, compared with what is there; written if there is none.

    That of `pack` beside the shards is copied; without one every shard is read once, and kept in
    the cache while there is room. DataError if the root is not that of the index, or its files
    have not the names and sizes in it.
    """
    path, store = Path(source.tracked_by), RemoteStore(source.root)
    found = store.list_files()
    found.pop(INDEX_FILE, None)
    index = read_index(path)
    if index is not None:
        _check_index(path, store, index, found)
    if index is None or not index.base:  # the latter is one of `pack`, copied by hand
        index = _index_files(store, found, index, progress)
        write_index(index, path)
    return index


def _check_index(path: Path, store: RemoteStore, index: ShardIndex, found: dict[str, int]) -> None:
    """An index says nothing about a root that it was not written for, whatever the names there."""
    place, root = to_printable(path), to_printable(store.root)
    anew = f"remove {place}, and `python -m steps plan` writes it anew"
    if index.base not in ("", store.base):
        raise DataError(
            f"{root}: found the index of {to_printable(index.base)} in {place}, expected that of "
            f"{to_printable(store.base)}; {anew}, or correct root or tracked_by"
        )
    _check_sizes(root, index.all_files, found, place, anew)
    known = {file.name for file in index.all_files}
    extra = [name for name in found if name not in known and (index.base or _is_shard(name))]
    if extra:
        raise DataError(
            f"{root}: found {to_printable(extra[0])}"
            f"{f' and {len(extra) - 1:,} others' if extra[1:] else ''}, expected only the "
            f"{len(known):,} files in {place}; {anew}, or correct the root"
        )


def _check_sizes(
    root: str, files: Iterable[IndexedFile], found: dict[str, int], place: str, anew: str
) -> None:
    for file in files:
        size = found.get(file.name)
        if size != file.bytes:
            state = "no such file" if size is None else f"{size:,} bytes"
            raise DataError(
                f"{root}: {to_printable(file.name)}: found {state}, expected {file.bytes:,} bytes "
                f"as in {place}; put it back, or {anew}"
            )


def _is_shard(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SHARD_SUFFIXES


def _read_packed(store: RemoteStore) -> dict[str, IndexedFile]:
    """The files in the index that `pack` wrote beside the shards, by name."""
    try:
        index = parse_index(store.read(INDEX_FILE), f"{store.root}: {INDEX_FILE}")
    except FileNotFoundError:
        return {}
    return {file.name: file for file in index.all_files}


def _index_files(
    store: RemoteStore,
    found: dict[str, int],
    copied: ShardIndex | None,
    progress: Progress | None,
) -> ShardIndex:
    """The index of the files found; `copied` or that of `pack` spares reading the shards in it."""
    try:
        check_names(found)
    except ValueError as error:
        raise DataError(f"{to_printable(store.root)}: {error}; rename it") from None
    known = {file.name: file for file in copied.all_files} if copied else _read_packed(store)
    packed = (known[name] for name in found if name in known)
    place = f"{INDEX_FILE} beside it"
    _check_sizes(to_printable(store.root), packed, found, place, f"remove that {INDEX_FILE}")
    indexed, done = list[IndexedFile](), 0
    for name, size in found.items():
        indexed.append(known.get(name) or _index_file(store, name, size))
        done += size
        if progress:
            progress(done, sum(found.values()))
    shards = tuple(file for file in indexed if _is_shard(file.name))
    others = tuple(file for file in indexed if not _is_shard(file.name))
    return ShardIndex(base=store.base, shards=shards, files=others, left_out=dict(store.left_out))


def _index_file(store: RemoteStore, name: str, size: int) -> IndexedFile:
    """Read a file of a store once, for its SHA-256, and keep it if there is room without removing
    another.
    """
    key = hashlib.sha256(os.fsencode(f"{store.root}\0{name}")).hexdigest()
    partial = get_folder() / "content" / f"{key}.partial"
    partial.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(partial.with_suffix(".lock")), remove_on_error(partial):
        partial.touch()
        file = IndexedFile(name=name, bytes=size, sha256=copy_remote(store, name, partial))
        with lock_names():
            others = count_bytes() - partial.stat().st_size
            if not get_content(file).exists() and others + size <= find_limit(others):
                rename_partial(partial, get_content(file))
            partial.unlink(missing_ok=True)
    return file
