"""Scan a dataset in any layout into a manifest: one row per image file of a class of the training
set; invalid files are included and marked.
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa

from densecl.datasets.manifests.inspect import FileInfo, inspect_file
from densecl.datasets.manifests.kept_scans import (
    group_by_shard,
    list_unscanned,
    read_scan,
    write_scan,
)
from densecl.datasets.manifests.listing import FolderLayout, Listing, list_dataset
from densecl.datasets.storage.decode import Orientation
from densecl.datasets.storage.image_names import ROWS_AT_ONCE
from densecl.datasets.storage.image_root import get_file_size, read_file
from densecl.datasets.storage.manifest import SCHEMA
from densecl.datasets.storage.shard_cache import read_source
from densecl.runtime.signals import exit_worker_with_parent

Progress = Callable[[int, int], object]
UNWRITTEN = ("is_turned", "is_final")  # the last fields of FileInfo
T = TypeVar("T")

CHUNK_SIZE = 64  # files per task and per report of progress
# Bytes of a dataset, about 1.5 s of decoding: below, starting processes costs more than it saves.
SERIAL_BYTES = 16 * 1024**2


class Scan(NamedTuple):
    """A manifest, and how many of its images have an EXIF orientation that is not upright."""

    frame: pd.DataFrame
    turned: int


def scan_dataset(
    dataset: str,
    root: Path,
    layout: FolderLayout,
    classes: Sequence[str],
    workers: int,
    *,
    devkit: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """`list_dataset`, then `scan_listing`."""
    listing = list_dataset(root, layout, classes, devkit)
    return scan_listing(dataset, root, listing, classes, workers, progress).frame


def scan_listing(
    dataset: str,
    root: Path,
    listing: Listing,
    classes: Sequence[str],
    workers: int,
    progress: Progress | None = None,
    exif: Orientation = "ignore",
    unscanned: Sequence[Path] | None = None,
) -> Scan:
    """Manifest sorted by image_id, independent of the number of workers and of what is kept; each
    file is hashed and decoded completely.

    A file that cannot be used is a row with a `problem`. `progress` and `unscanned`: as
    `inspect_images`.
    """
    images = [path for path, _ in listing.images]
    infos = inspect_images(root, images, workers, progress, exif, unscanned)
    tables, rows, turned = [], [], 0
    for (path, label), info in zip(listing.images, infos, strict=True):
        turned += info.is_turned
        name = listing.names.get(path, path)
        rows.append((f"{dataset}/{name}", path, label, classes[label], *info[: -len(UNWRITTEN)]))
        if len(rows) == ROWS_AT_ONCE:  # a row of Python objects takes a kilobyte
            tables.append(_build_table(rows))
            rows = []
    frame: pd.DataFrame = pa.concat_tables([*tables, _build_table(rows)]).to_pandas()
    if listing.names:
        frame = frame.sort_values("image_id", kind="stable", ignore_index=True)
    return Scan(frame, turned)


def inspect_images(
    root: Path,
    images: Sequence[str],
    workers: int,
    progress: Progress | None = None,
    exif: Orientation = "ignore",
    unscanned: Sequence[Path] | None = None,
) -> Iterator[FileInfo]:
    """What is found of each image below a root, in order; of shards of a remote root, it is kept,
    and not read again.

    `unscanned`: of `list_unscanned`, if it is known. `progress(done, total)` counts these.
    """
    inspect = partial(inspect_file, exif=exif)
    if read_source(root) is None:
        yield from run_in_parallel(inspect, [root / path for path in images], workers, progress)
        return
    if unscanned is None:
        unscanned = list_unscanned(root, images, exif)
    found, remaining = run_in_parallel(inspect, unscanned, workers, progress), iter(unscanned)
    awaited = next(remaining, None)
    for shard, names in group_by_shard(root, images):
        known, new = read_scan(shard, exif), dict[str, FileInfo]()
        for name in names:
            if shard / name == awaited:
                new[name], awaited = next(found), next(remaining, None)
            elif name not in known:  # removed meanwhile
                new[name] = inspect(shard / name)
            yield new[name] if name in new else known[name]
        if new:
            write_scan(shard, exif, known | new)
    next(found, None)  # there is none: it reports the last ones


def _build_table(rows: Sequence[tuple[object, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [()] * len(SCHEMA)
    return pa.table(
        [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )


def run_in_parallel(
    function: Callable[[Path], T],
    paths: Sequence[Path],
    workers: int,
    progress: Progress | None = None,
) -> Iterator[T]:
    """Apply `function` to every path in order, in several processes if there are enough files."""
    with ExitStack() as stack:
        results: Iterator[T] = map(function, paths)
        if workers > 1 and any(total > SERIAL_BYTES for total in accumulate(_iter_sizes(paths))):
            # Not forked: the caller may hold threads (torch, progress bars).
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, context, initializer=exit_worker_with_parent)
            results = stack.enter_context(pool).map(function, paths, chunksize=CHUNK_SIZE)
        for done, result in enumerate(results, 1):
            yield result
            if progress and (done % CHUNK_SIZE == 0 or done == len(paths)):
                progress(done, len(paths))


def _iter_sizes(paths: Sequence[Path]) -> Iterator[int]:
    """Sizes in bytes; a file that cannot be read is reported when it is inspected."""
    for path in paths:
        with suppress(OSError):
            yield get_file_size(path)


def hash_file(path: Path) -> str:
    """SHA-256 of the file's content in hex; OSError."""
    return hashlib.sha256(read_file(path)).hexdigest()
