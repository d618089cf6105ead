"""What `inspect_file` finds of the images of a shard, kept by the shard's SHA-256, so that no shard
is scanned twice: in `prepare` of a dataset that is packed anew, after an interruption, and where
jobs on other machines scan the shards first.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import features

from densecl import paths
from densecl.datasets.manifests.inspect import FileInfo
from densecl.datasets.storage.decode import Orientation
from densecl.datasets.storage.image_formats import FORMATS
from densecl.datasets.storage.shard_cache import check_content, find_sha256, find_shard
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
DECODERS = ("libjpeg_turbo", "jpg_2000", "zlib", "libtiff", "webp", "avif")  # Pillow's, as built
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
        ("is_final", pa.bool_()),
    ]
)


def locate_scan(shard: Path, exif: Orientation) -> Path:
    """Where the scan of a shard of a remote root is kept, now or later."""
    key = json.dumps([find_sha256(shard), exif, *_describe_code()])
    return paths.SCANS / hashlib.sha256(key.encode()).hexdigest()


@cache
def _describe_code() -> list[object]:
    versions = [version(name) for name in SCAN_PACKAGES]
    return [hash_sources(SCAN_CODE), FORMATS, versions, [_get_decoder(name) for name in DECODERS]]


def _get_decoder(name: str) -> str | None:
    return features.version(name) if features.check(name) else None


def read_scan(shard: Path, exif: Orientation) -> dict[str, FileInfo]:
    """What is kept of the images of a shard, by their names in it."""
    names, *columns = (column.to_pylist() for column in _read_table(shard, exif).columns)
    return dict(zip(names, map(FileInfo._make, zip(*columns, strict=True)), strict=True))


def read_scanned_names(shard: Path, exif: Orientation) -> dict[str, bool]:
    """The images of a shard of which something is kept, and whether that is final."""
    table = _read_table(shard, exif, ["name", "is_final"])
    return dict(zip(*(column.to_pylist() for column in table.columns), strict=True))


def _read_table(shard: Path, exif: Orientation, columns: list[str] | None = None) -> pa.Table:
    """Without rows if nothing is kept that can be read."""
    content = read_kept(locate_scan(shard, exif))
    if content is not None:
        with suppress(pa.ArrowException):
            file = pa.BufferReader(content)
            if pq.read_schema(file) == SCAN_SCHEMA:
                # In this thread: others may still run when the process ends.
                return pq.read_table(file, columns=columns, use_threads=False, pre_buffer=False)
    return SCAN_SCHEMA.empty_table().select(columns or SCAN_SCHEMA.names)


def write_scan(shard: Path, exif: Orientation, infos: Mapping[str, FileInfo]) -> None:
    """Keep what was found in a shard; RetryLater if it is not what its SHA-256 says."""
    check_content(shard)
    rows = [(name, *info) for name, info in sorted(infos.items())]
    columns = zip(*rows, strict=True) if rows else [()] * len(SCAN_SCHEMA)
    arrays = [pa.array(v, field.type) for v, field in zip(columns, SCAN_SCHEMA, strict=True)]
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays, schema=SCAN_SCHEMA), buffer, compression="zstd")
    write_kept(locate_scan(shard, exif), buffer.getvalue())


def list_unscanned(root: Path, images: Iterable[str], exif: Orientation) -> list[Path]:
    """The images below a remote root, in their order, of which nothing final is kept."""
    unscanned = list[Path]()
    for shard, names in group_by_shard(root, images):
        known = read_scanned_names(shard, exif)
        unscanned += [shard / name for name in names if not known.get(name)]
    return unscanned


def group_by_shard(root: Path, images: Iterable[str]) -> Iterator[tuple[Path, list[str]]]:
    """The shards of sorted images below a remote root, each with the names of its images in it."""
    find = cache(lambda folder: find_shard(root / folder))
    for shard, found in groupby(images, lambda path: find(path.rpartition("/")[0])):
        if shard is not None:
            start = len(shard.relative_to(root).as_posix()) + 1
            yield shard, [path[start:] for path in found]
