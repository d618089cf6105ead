"""Layout webdataset: tars with `KEY.jpg` and the label in `KEY.cls` or in `label` of `KEY.json`, as
timm and clip-benchmark write them. The tars are read in place.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from densecl.config.data_params import DatasetParams
from densecl.datasets.manifests.layouts.labelled_files import (
    RECODED,
    LabelledFiles,
    Sample,
    name_classes,
)
from densecl.datasets.manifests.layouts.shard_listings import (
    ShardListing,
    is_listed,
    read_listing,
    write_listing,
)
from densecl.datasets.manifests.layouts.shards import ShardInfo, find_shards, read_info
from densecl.datasets.storage.archives import Archive, open_archive
from densecl.datasets.storage.filenames import find_litter, is_image_name, to_printable
from densecl.datasets.storage.shard_cache import fetch_ahead
from densecl.datasets.storage.skipped_files import REPLACED, describe_extension
from densecl.errors import DataError

WITHOUT_LABEL = "without a label"
LABEL_FILES = (".cls", ".json")


def list_webdataset(source: DatasetParams) -> LabelledFiles:
    """Every image of the shards with its class; DataError for a label that is not valid."""
    root = Path(source.root)
    shards, skipped = find_shards(source, ".tar")
    samples, counts = list[Sample](), dict[str, int]()
    # Decided once: other processes list shards meanwhile.
    todo = [shard for shard in shards if not is_listed(shard)]
    unlisted, fetched = set(todo), fetch_ahead(todo)
    for shard in shards:
        prefix = "" if shard == root else f"{shard.relative_to(root).as_posix()}/"
        if shard in unlisted:
            listed = _read_shard(open_archive(next(fetched)))
            write_listing(shard, listed)
        else:
            listed = read_listing(shard)
        samples += [sample._replace(path=prefix + sample.path) for sample in listed.samples]
        counts[shard.name] = len(listed.samples)
        # A shard is one file on disk; what is in it is counted instead.
        skipped.update(listed.skipped)
    info, info_notes = read_info(root)
    images, notes = name_classes(root, samples, info.class_names, source.class_list)
    counted = _compare_counts(info, counts)
    own = tuple(sample.own_name for sample in samples)
    return LabelledFiles(images, +skipped, (*notes, *info_notes, *counted, RECODED), own)


def _read_shard(archive: Archive) -> ShardListing:
    """The images of a shard with a label, and its other files by reason."""
    samples, members = list[Sample](), archive.list_names()
    label_files = {name for name in members if name.endswith(LABEL_FILES)}
    skipped = Counter({REPLACED: archive.replaced})
    for name in members:
        if name.endswith("/"):
            continue
        folder, _, base = name.rpartition("/")
        if litter := find_litter(name.split("/")):
            skipped[litter] += 1
        elif not is_image_name(base):
            skipped[describe_extension(base)] += 1
        else:
            key = f"{folder}/{base.partition('.')[0]}" if folder else base.partition(".")[0]
            found = _read_label(archive, key, label_files)
            if found is None:
                skipped[WITHOUT_LABEL] += 1
            else:
                samples.append(Sample(name, found[0], f"{key} {found[1]}", found[1]))
    return ShardListing(samples, +skipped)


def _read_label(archive: Archive, key: str, label_files: set[str]) -> tuple[int, str] | None:
    """Label of a key and the file's earlier name; None without a label. DataError for a label that
    is no integer, and for two that differ.
    """
    labels, filename = list[int](), ""
    for suffix in LABEL_FILES:
        name = key + suffix
        if name not in label_files:
            continue
        try:
            value: Any = json.loads(archive.read_member(name))
        except ValueError:
            value = None
        if isinstance(value, dict):
            filename = str(value.get("filename", ""))
            value = value.get("label")
            if value is None:
                continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise DataError(
                f"{to_printable(archive.path / name)}: found {to_printable(value)!r}, expected a "
                "label, an integer"
            )
        labels.append(value)
    if len(set(labels)) > 1:
        raise DataError(
            f"{to_printable(archive.path / key)}: found labels {labels} in its .cls and .json, "
            "expected one"
        )
    return (labels[0], filename) if labels else None


def _compare_counts(info: ShardInfo, counts: dict[str, int]) -> list[str]:
    """Where the shards hold other numbers of images than timm's description says."""
    for split in info.splits.values():
        files = split.filenames
        expected = dict(zip(files, split.shard_lengths, strict=False))
        if not set(files) & set(counts):
            continue
        missing = [name for name in files if name not in counts]
        other = [name for name in counts if counts[name] != expected.get(name, counts[name])]
        if missing or other:
            return [
                f"warning: of the {len(files):,} shards of _info.json {len(missing):,} are missing "
                f"and {len(other):,} hold another number of images"
            ]
    return []
