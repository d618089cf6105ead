"""Write the images of a manifest as tars of webdataset, with an index."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from densecl.artifacts import write_text
from densecl.datasets.storage.filenames import EXTENSIONS, get_suffix, to_printable
from densecl.datasets.storage.image_root import read_file
from densecl.errors import DataError

SHARD_BYTES = 150 * 10**6  # of images per tar; its headers add 1.5 KiB per image
INFO_FILE, INDEX_FILE = "_info.json", "index.json"


class Shard(NamedTuple):
    name: str
    images: int
    bytes: int
    sha256: str


def pack_images(
    dataset: str,
    frame: pd.DataFrame,
    classes: Sequence[str],
    root: Path,
    folder: Path,
    shard_bytes: int = SHARD_BYTES,
) -> list[Shard]:
    """Write the shards, timm's `_info.json` with the class list, and `index.json` with the size and
    SHA-256 of each shard; equal images give equal bytes.

    `KEY.json` holds label, class and name of an image, `KEY.cls` its label. DataError if an image
    differs from the manifest.
    """
    shards = []
    for number, rows in enumerate(_split(frame, shard_bytes)):
        path = folder / f"{dataset}-{number:05d}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for row in rows:
                for name, content in _build_members(root, row):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        shards.append(Shard(path.name, len(rows), path.stat().st_size, digest))
    split = {
        "name": dataset,
        "filenames": [shard.name for shard in shards],
        "shard_lengths": [shard.images for shard in shards],
        "num_samples": len(frame),
    }
    _write_json(folder / INFO_FILE, {"class_names": list(classes), "splits": {dataset: split}})
    _write_json(folder / INDEX_FILE, {"shards": [shard._asdict() for shard in shards]})
    return shards


def _split(frame: pd.DataFrame, shard_bytes: int) -> Iterator[list[pd.Series]]:
    """Rows in their order, in parts of at least one image and at most `shard_bytes`."""
    rows: list[pd.Series] = []
    total = 0
    for _, row in frame.iterrows():
        if rows and total + row["bytes"] > shard_bytes:
            yield rows
            rows, total = [], 0
        rows.append(row)
        total += row["bytes"]
    if rows:
        yield rows


def _build_members(root: Path, row: pd.Series) -> Iterable[tuple[str, bytes]]:
    path = root / row["path"]
    try:
        content = read_file(path)
    except OSError as error:
        reason = (error.strerror or "unreadable").lower()
        raise DataError(f"{to_printable(path)}: {reason}; expected an image") from None
    if hashlib.sha256(content).hexdigest() != row["sha256"]:
        raise DataError(
            f"{to_printable(path)}: found another content than its manifest says; run the stage "
            "prepare of this dataset again"
        )
    suffix = get_suffix(row["path"])
    name = row["image_id"].partition("/")[2]  # its path in folders, also if this is a copy
    about = {"label": int(row["label"]), "class": row["wnid"], "filename": name}
    key = f"{row.name:09d}"
    yield key + (suffix if suffix in EXTENSIONS else ".jpg"), content
    yield f"{key}.cls", str(about["label"]).encode()
    yield f"{key}.json", json.dumps(about, sort_keys=True).encode()


def _write_json(path: Path, value: object) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
