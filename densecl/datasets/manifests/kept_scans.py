"""What `inspect_file` finds of the images of a shard, kept by the shard's SHA-256, so that no shard
is scanned twice: in `prepare` of a dataset that is packed anew, after an interruption, and where
jobs on other machines scan the shards first.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from densecl import paths
from densecl.datasets.manifests.inspect import FileInfo
from densecl.datasets.storage.decode import Orientation
from densecl.datasets.storage.image_formats import FORMATS
from densecl.datasets.storage.shard_cache import find_sha256, find_shard
from densecl.runtime.kept_files import read_kept, write_kept
from densecl.runtime.source_hash import hash_sources

# Code and packages that decide what is found of the bytes of an image.
SCAN_CODE = (
    "datasets/manifests/dhash.py",
    "datasets/manifests/inspect.py",
    "datasets/manifests/kept_scans.py",
    "datasets/storage",
)
SCAN_PACKAGES = ("numpy", "pillow", *(("pillow-heif",) if "HEIF" in FORMATS else ()))
SCAN_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("problem", pa.string()),
        ("dhash", pa.string()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("is_turned", pa.bool_()),
    ]
)


def locate_scan(shard: Path, exif: Orientation) -> Path:
    """Where the scan of a shard of a remote root is kept, now or later."""
    key = json.dumps([find_sha256(shard), exif, *_describe_code()])
    return paths.SCANS / hashlib.sha256(key.encode()).hexdigest()


@cache
def _describe_code() -> list[object]:
    return [hash_sources(SCAN_CODE), FORMATS, [version(name) for name in SCAN_PACKAGES]]


def read_scan(shard: Path, exif: Orientation) -> dict[str, FileInfo]:
    """What is kept of the images of a shard, by their names in it."""
    if (content := read_kept(locate_scan(shard, exif))) is None:
        return {}
    # In this thread: others may still run when the process ends.
    table = pq.read_table(pa.BufferReader(content), use_threads=False, pre_buffer=False)
    if table.schema != SCAN_SCHEMA:
        return {}
    names, *columns = (column.to_pylist() for column in table.columns)
    return dict(zip(names, map(FileInfo._make, zip(*columns, strict=True)), strict=True))


def write_scan(shard: Path, exif: Orientation, infos: Mapping[str, FileInfo]) -> None:
    """Keep what was found of images that could be read: the others may be next time."""
    rows = [(name, *info) for name, info in sorted(infos.items()) if info.sha256]
    columns = zip(*rows, strict=True) if rows else [()] * len(SCAN_SCHEMA)
    arrays = [pa.array(v, field.type) for v, field in zip(columns, SCAN_SCHEMA, strict=True)]
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=SCAN_SCHEMA), buffer, compression="zstd")
    write_kept(locate_scan(shard, exif), buffer.getvalue())


def list_unscanned(root: Path, images: Iterable[str], exif: Orientation) -> list[Path]:
    """The images below a remote root, in their order, of which nothing is kept."""
    unscanned = list[Path]()
    for shard, names in group_by_shard(root, images):
        known = read_scan(shard, exif)
        unscanned += [shard / name for name in names if name not in known]
    return unscanned


def group_by_shard(root: Path, images: Iterable[str]) -> Iterator[tuple[Path, list[str]]]:
    """The shards of sorted images below a remote root, each with the names of its images in it."""
    find = cache(lambda folder: find_shard(root / folder))
    for shard, found in groupby(images, lambda path: find(path.rpartition("/")[0])):
        if shard is not None:
            start = len(shard.relative_to(root).as_posix()) + 1
            yield shard, [path[start:] for path in found]
