"""What a shard of a remote root holds, kept by its SHA-256: the classes of the training set are
asked for by every dataset, and its shards are not always in the cache.
"""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from densecl.datasets.manifests.layouts.labelled_files import Sample
from densecl.datasets.storage.shard_cache import find_listing
from densecl.runtime.atomic_files import open_atomic_file

VERSION = 4  # listings of another version are not read


class ShardListing(NamedTuple):
    """The labelled images of a shard by their names in it, and its other files by reason."""

    samples: list[Sample]
    skipped: Counter[str]


def is_listed(shard: Path) -> bool:
    file = find_listing(shard, VERSION)
    return file is not None and file.exists()


def read_listing(shard: Path) -> ShardListing:
    """Of a shard that is listed."""
    file = find_listing(shard, VERSION)
    if file is None:
        raise FileNotFoundError(2, "no listing", str(shard))
    stored = json.loads(file.read_bytes())
    return ShardListing([Sample(*row) for row in stored["samples"]], Counter(stored["skipped"]))


def write_listing(shard: Path, listing: ShardListing) -> None:
    """Of a shard of a remote root; others can be read again."""
    if (file := find_listing(shard, VERSION)) is None:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")), open_atomic_file(file) as out:
        out.write(json.dumps(listing._asdict()).encode())
