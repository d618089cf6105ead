"""Whether a dataset has changed since it was last checked, by the times of its folders.

A stat per image takes minutes for a million images on a network file system. A file that is added,
removed or replaced changes the mtime and ctime of its folder (rsync, cp -a and tar restore the
mtime, nothing sets the ctime); one that is rewritten in place does not, so where DVC tracks the
folder its content hash finds that, and small datasets are compared file by file.
"""

import hashlib
import json
import os
import time
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from densecl import paths
from densecl.datasets.storage.image_names import list_folders
from densecl.datasets.storage.manifest import check_unchanged
from densecl.runtime.atomic_files import open_atomic_file

MAX_STATS = 20_000  # images that are compared file by file each time: 0.1 s on a local disk
SETTLED = 2.0  # s: a younger ctime may stay as it is at the next change: clocks are coarse
Times = dict[str, list[int]]  # ctime and mtime in ns, size: of a folder or the archive it is in


def check_folders(frame: pd.DataFrame, root: Path, manifest: Path) -> None:
    """Raise DataError as `check_unchanged`, for files in folders that changed since the last check.

    What was checked is recorded per manifest and root in `paths.CHECKED_FOLDERS`; without a record
    every file is compared.
    """
    if len(frame) <= MAX_STATS:
        check_unchanged(frame, root)
        return
    record = paths.CHECKED_FOLDERS / f"{_hash_identity(manifest, root)}.json"
    known, now = _read_record(record), time.time_ns()
    folders = list_folders(frame["path"])
    found = {name: _get_times(root / name) for name in folders.unique().to_pylist()}
    changed = [name for name, times in found.items() if times is None or times != known.get(name)]
    if not changed:
        return
    is_changed = pc.is_in(folders, value_set=pa.array(changed, folders.type))
    check_unchanged(frame[is_changed.to_numpy(zero_copy_only=False)], root)
    settled = now - SETTLED * 1e9
    _write_record(record, {k: t for k, t in found.items() if t is not None and t[0] < settled})


def _hash_identity(manifest: Path, root: Path) -> str:
    with manifest.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(os.fsencode(root.resolve()))
    return digest.hexdigest()[:32]


def _get_times(folder: Path) -> list[int] | None:
    """None if it cannot be looked at: its files then are."""
    for place in (folder, *folder.parents):  # a path may run through an archive
        try:
            status = place.stat()
        except NotADirectoryError:
            continue
        except OSError:
            return None
        return [status.st_ctime_ns, status.st_mtime_ns, status.st_size]
    return None


def _read_record(path: Path) -> Times:
    try:
        record: Times = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_record(path: Path, record: Times) -> None:
    """A record that cannot be written costs the next check time, nothing else."""
    try:
        with open_atomic_file(path) as file:
            file.write(json.dumps(record).encode())
    except OSError:
        return
