"""Layout webdataset: tars with `KEY.jpg` and the label in `KEY.cls` or in `label` of `KEY.json`, as
timm and clip-benchmark write them. The tars are read in place.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecl.config.data_params import DatasetParams
from densecl.datasets.manifests.layouts.labelled_files import (
    RECODED,
    LabelledFiles,
    Sample,
    name_classes,
)
from densecl.datasets.manifests.layouts.shard_listings import iter_listings
from densecl.datasets.manifests.layouts.shards import ShardInfo, find_shards, read_info
from densecl.datasets.storage.archives import Archive, open_archive
from densecl.datasets.storage.filenames import (
    EXTENSIONS,
    find_litter,
    is_image_name,
    to_printable,
)
from densecl.datasets.storage.json_text import load_json
from densecl.datasets.storage.skipped_files import REPLACED, describe_extension
from densecl.errors import DataError

WITHOUT_LABEL = "without a label"
OTHER_IMAGE = "another image of a key, such as KEY.mask.png"
MAX_LABEL = 80  # characters of a .cls that an error shows
LABEL_FILES = (".cls", ".json")


def list_webdataset(source: DatasetParams) -> LabelledFiles:
    """The image of each key with its class; DataError for a label that is not valid."""
    root = Path(source.root)
    shards, skipped = find_shards(source, ".tar")
    samples, counts = list[Sample](), dict[str, int]()
    for shard, listed in iter_listings(shards, read_tar):
        prefix = "" if shard == root else f"{shard.relative_to(root).as_posix()}/"
        samples += [Sample(prefix + path, *rest) for path, *rest in listed["samples"]]
        counts[shard.name] = len(listed["samples"])
        # A shard is one file on disk; what is in it is counted instead.
        skipped.update(listed["skipped"])
    info, info_notes = read_info(root)
    images, notes = name_classes(root, samples, info.class_names, source.class_list)
    counted = _compare_counts(info, counts)
    own = tuple(sample.own_name for sample in samples)
    return LabelledFiles(images, +skipped, (*notes, *info_notes, *counted, RECODED), own)


def read_tar(shard: Path) -> dict[str, Any]:
    """The image of each key of a shard with a label, and its other files by reason."""
    archive = open_archive(shard)
    skipped, keys = Counter({REPLACED: archive.replaced}), dict[str, dict[str, list[str]]]()
    for name in archive.list_names():
        if name.endswith("/"):
            continue
        folder, _, base = name.rpartition("/")
        if litter := find_litter(name.split("/")):
            skipped[litter] += 1
            continue
        stem, _, extension = base.partition(".")
        key = f"{folder}/{stem}" if folder else stem
        keys.setdefault(key, {}).setdefault(f".{extension.lower()}", []).append(name)
        if not is_image_name(base):
            skipped[describe_extension(base)] += 1
    samples = list[Sample]()
    for key, members in keys.items():
        images = [name for names in members.values() for name in names if is_image_name(name)]
        label = _read_label(archive, key, members) if images else None
        if label is None:
            skipped[WITHOUT_LABEL] += len(images)
            continue
        image = _choose_image(archive, key, members)
        skipped[OTHER_IMAGE] += len(images) - (image is not None)
        if image is not None:
            value, own, class_name = label
            samples.append(Sample(image, value, f"{key} {own}", own, class_name))
    return {"samples": samples, "skipped": +skipped}


def _choose_image(archive: Archive, key: str, members: Mapping[str, list[str]]) -> str | None:
    """The image of a key: KEY.jpg, not KEY.mask.png, since the extension is all that follows the
    first dot; None without one. DataError for several.
    """
    images = [name for extension in EXTENSIONS for name in members.get(extension, ())]
    if len(images) > 1:
        raise DataError(
            f"{to_printable(archive.path / key)}: found images "
            f"{to_printable(', '.join(sorted(images)))}, expected one per key; remove the others, "
            "or name them as KEY.mask.png"
        )
    return images[0] if images else None


def _read_label(
    archive: Archive, key: str, members: Mapping[str, list[str]]
) -> tuple[int, str, str] | None:
    """Label of a key, the file's earlier name and its class; None without a label. DataError for a
    label that is no integer, and for two that differ.
    """
    labels, filename, class_name = list[int](), "", ""
    for name in (name for extension in LABEL_FILES for name in members.get(extension, ())):
        value = _read_value(archive, name)
        if isinstance(value, dict):
            filename, class_name = (_read_text(value, field) for field in ("filename", "class"))
            value = value.get("label")
            if value is None:
                continue
        if not isinstance(value, int) or isinstance(value, bool):
            found = "a list" if isinstance(value, list | dict) else f"'{to_printable(value)[:80]}'"
            raise DataError(
                f"{to_printable(archive.path / name)}: found {found}, expected a label, an integer"
            )
        labels.append(value)
    if len(set(labels)) > 1:
        raise DataError(
            f"{to_printable(archive.path / key)}: found labels {labels} in its .cls and .json, "
            "expected one"
        )
    return (labels[0], filename, class_name) if labels else None


def _read_text(about: dict[str, Any], field: str) -> str:
    value = about.get(field)
    return value if isinstance(value, str) else ""


def _read_value(archive: Archive, name: str) -> Any:
    """Of a member that is JSON, or digits with leading zeros; the text of any other .cls."""
    content = archive.read_member(name)
    try:
        return load_json(content)
    except ValueError as error:
        text = content.decode("utf-8", "replace").strip()
        if re.fullmatch(r"[0-9]{1,18}", text):
            return int(text)
        if name.lower().endswith(".cls") and len(text) <= MAX_LABEL:
            return text
        raise DataError(
            f"{to_printable(archive.path / name)}: not readable as JSON "
            f"({to_printable(error)[:120]}), expected a label, an integer; download it again"
        ) from None


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
