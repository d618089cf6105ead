"""The images of shards of a remote root, by their names in them, whatever their classes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from densecl.artifacts import DatasetPlan
from densecl.config.data_params import DatasetParams
from densecl.datasets.manifests.kept_scans import read_scanned_names
from densecl.datasets.manifests.layouts.parquet import read_rows
from densecl.datasets.manifests.layouts.shard_listings import iter_listings, read_listing
from densecl.datasets.manifests.layouts.shards import find_shards
from densecl.datasets.manifests.layouts.webdataset import read_tar
from densecl.datasets.storage.filenames import is_utf8
from densecl.datasets.storage.parquet_images import name_row
from densecl.datasets.storage.remote_root import locate_source


class ShardLayout(NamedTuple):
    suffix: str
    read: Callable[[Path], Any]  # what a shard holds
    name_images: Callable[[Any], Iterable[str]]  # of what it holds


SHARD_LAYOUTS = {
    "webdataset": ShardLayout(".tar", read_tar, lambda held: [row[0] for row in held["samples"]]),
    "parquet": ShardLayout(
        ".parquet", read_rows, lambda held: [name_row(row, own) for row, own in enumerate(held[1])]
    ),
}


def locate_shards(source: DatasetParams) -> list[Path]:
    """The shards of a remote root, of the source's split."""
    return sorted(find_shards(locate_source(source), SHARD_LAYOUTS[source.layout].suffix)[0])


def iter_shard_images(source: DatasetParams) -> Iterator[tuple[Path, list[str]]]:
    """Each shard with the images in it, but for names that no manifest can hold; one that is not
    listed is fetched.
    """
    layout = SHARD_LAYOUTS[source.layout]
    for shard, held in iter_listings(locate_shards(source), layout.read):
        yield shard, list(filter(is_utf8, layout.name_images(held)))


def is_scanned(plan: DatasetPlan, shard: Path) -> bool:
    """Whether what a shard holds, and something of each image in it, is kept; what is not final is
    looked at again by `prepare` itself.
    """
    if (held := read_listing(shard)) is None:
        return False
    names = set(filter(is_utf8, SHARD_LAYOUTS[plan.dataset.layout].name_images(held)))
    return names <= read_scanned_names(shard, plan.exif).keys()
