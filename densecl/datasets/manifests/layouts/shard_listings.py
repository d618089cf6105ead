"""What a shard of a remote root holds, kept by its SHA-256: the classes of the training set are
asked for by every dataset, and its shards are not always in the cache.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.datasets.storage.filenames import EXTENSIONS
from densecl.datasets.storage.shard_cache import check_content, fetch_ahead, find_sha256
from densecl.runtime.kept_files import read_kept, write_kept
from densecl.runtime.source_hash import hash_sources

# Code that decides what is listed, and the extensions of the images that can be read here.
LISTING_CODE = ("datasets/manifests/layouts", "datasets/storage")


def iter_listings(
    shards: Sequence[Path], read: Callable[[Path], Any]
) -> Iterator[tuple[Path, Any]]:
    """What each shard holds, as JSON can say it: what is kept, else what `read` finds in the shard,
    which is kept if the shard is one of a remote root.
    """
    # Decided once: other processes list shards meanwhile.
    todo = [shard for shard in shards if (f := locate_listing(shard)) is None or not f.exists()]
    unlisted, fetched = set(todo), fetch_ahead(todo)
    for shard in shards:
        listing = None
        if shard in unlisted:
            next(fetched)
        else:
            listing = read_listing(shard)
        if listing is None:
            listing = read(shard)
            if file := locate_listing(shard):
                check_content(shard)
                write_kept(file, json.dumps(listing).encode())
        yield shard, listing


def read_listing(shard: Path) -> Any:
    """What is kept of a shard; None if nothing is."""
    file = locate_listing(shard)
    content = file and read_kept(file)
    with suppress(ValueError):
        return json.loads(content) if content else None
    return None


def locate_listing(shard: Path) -> Path | None:
    """The file that keeps what a shard of a remote root holds; None for others, which can be read
    again.
    """
    if (sha256 := find_sha256(shard)) is None:
        return None
    return paths.LISTINGS / f"{sha256}-{_describe_code()}"


@cache
def _describe_code() -> str:
    return hash_sources(LISTING_CODE, " ".join(EXTENSIONS).encode())
