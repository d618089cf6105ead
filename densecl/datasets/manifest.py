"""Folder of a set -> manifest: one row an image file, bad files included and marked.

Read are the files directly inside class folders that carry an image extension; names that start with a dot, other
files and folders further down are not. The label is an index into the class list of the train set: found by the
folder's name (layout wnid) or given by the folder's integer (layout index), never by the order of folders.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from densecl.datasets.images import EXTENSIONS, Measured, fatal, measure
from densecl.errors import DataError
from densecl.lifetime import end_worker_with_parent

Layout = Literal["wnid", "index"]
Progress = Callable[[int, int], object]

SCHEMA = pa.schema([
    ("image_id", pa.string()), ("path", pa.string()), ("label", pa.int64()), ("wnid", pa.string()),
    ("width", pa.int32()), ("height", pa.int32()), ("bytes", pa.int64()), ("sha256", pa.string()),
    ("problem", pa.string()),
])  # fmt: skip
CHUNK = 64  # files a task
ALONE = 16 * 1024**2  # bytes of a set, about 1.5 s of decoding: below, starting processes costs more than it saves


def class_list(train_root: Path) -> list[str]:
    """[C] sorted folder names of the train set: the place of a name is its label. DataError as `check_root`."""
    check_root(train_root, "wnid")
    return [_decodable(entry).name for entry in _class_folders(train_root)]


def check_root(root: Path, layout: Layout) -> None:
    """Cheap look at a set's folder; DataError that names the path, what was found, what is expected and what to do."""
    expected = "one folder a class, " + ("named by its wnid" if layout == "wnid" else "named by its index (0, 1, ...)")
    if not root.is_dir():
        found = "no such folder" if not root.exists() else "found a file, expected a folder"
        raise DataError(f"{shown(root)}: {found}; expected {expected}; unpack the set there or correct its root")
    folders = _class_folders(root)
    if not folders:
        loose = sum(_is_image(entry.name) for entry in _entries(root))
        raise DataError(f"{shown(root)}: found no class folders and {loose} image files; expected {expected}; "
                        "sort the images into such folders or correct the root")  # fmt: skip
    for folder in folders:
        if layout == "index":
            _index(folder)
        if not any(_is_image(entry.name) for entry in _entries(Path(folder.path))):
            below = sum(entry.is_dir() for entry in _entries(Path(folder.path)))
            raise DataError(
                f"{shown(folder.path)}: empty class folder: found no image file and {below} folders; "
                f"expected {', '.join(EXTENSIONS)} files directly inside; fill it or remove it"
            )


def scan(
    dataset: str, root: Path, layout: Layout, classes: Sequence[str], workers: int, *, progress: Progress | None = None
) -> pd.DataFrame:
    """Manifest sorted by path, the same for every number of workers; each file is hashed and decoded whole.

    A file that cannot be used is a row with a `problem`. `progress(done, total)` counts files.
    DataError: as `check_root`; a folder outside the class list; a link that leaves the root or loops; a name that is
    not UTF-8.
    """
    check_root(root, layout)
    known = {name: label for label, name in enumerate(classes)}
    labels = {folder.name: _label(folder, layout, known) for folder in _class_folders(root)}
    _refuse_two_folders_of_one_class(root, labels)
    paths = sorted(f"{name}/{file}" for name in labels for file in _image_names(root, name))
    measured = list(_measure_all([root / path for path in paths], workers, progress))
    rows = [
        (f"{dataset}/{path}", path, label, classes[label], *m.probe[:2], m.bytes, m.sha256, m.probe.problem)
        for path, label, m in zip(paths, (labels[p.partition("/")[0]] for p in paths), measured, strict=True)
    ]
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    return pa.table(columns, schema=SCHEMA).to_pandas()


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Byte-stable Parquet; appears whole or not at all."""
    table = pa.Table.from_pandas(frame[SCHEMA.names], schema=SCHEMA, preserve_index=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    # Without pandas' own metadata, which names its version.
    pq.write_table(table.replace_schema_metadata(None), partial, compression="zstd")
    partial.replace(path)


def read_manifest(path: Path) -> pd.DataFrame:
    """Manifest of a Parquet file; DataError that names the first column that is missing, unknown or of another type."""
    try:
        table = pq.read_table(path)
        frame = table.to_pandas()  # reads the text of the columns too
    except Exception as error:  # found by fuzzing: NotImplemented, UnicodeDecodeError and others of damaged bytes
        found = (
            "no such file" if not path.exists() else f"not readable as Parquet ({' '.join(str(error).split())[:120]})"
        )
        raise DataError(f"{path}: {found}; expected a manifest; run the stage prepare of this set") from None
    again = "run the stage prepare of this set again"
    for field in SCHEMA:
        found = str(table.schema.field(field.name).type) if field.name in table.schema.names else "no such column"
        if found != str(field.type):
            raise DataError(f"{path}: column {field.name}: found {found}, expected {field.type}; {again}")
    if table.schema.names != SCHEMA.names:
        raise DataError(f"{path}: found columns {table.schema.names}, expected {SCHEMA.names}; {again}")
    return frame


def usable(frame: pd.DataFrame, excluded: Iterable[str] = ()) -> pd.DataFrame:
    """The rows that can be trained on and scored: no fatal problem, and image_id not in `excluded`."""
    keep = ~frame["problem"].map(fatal).astype(bool) & ~frame["image_id"].isin(list(excluded))
    return frame[keep].reset_index(drop=True)


def shown(name: object) -> str:
    """The name with everything unprintable escaped, so that an error stays one line and hides nothing."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(name))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _class_folders(root: Path) -> list[os.DirEntry[str]]:
    # A link that loops is no folder: it must not be passed over.
    return [_contained(entry, root) for entry in _entries(root) if entry.is_symlink() or entry.is_dir()]


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _image_names(root: Path, folder: str) -> Iterator[str]:
    for entry in _entries(root / folder):
        if _is_image(entry.name):
            if not _contained(_decodable(entry), root).is_file():
                raise DataError(f"{shown(entry.path)}: found a folder or a device, expected an image file; remove it")
            yield entry.name


def _contained(entry: os.DirEntry[str], root: Path) -> os.DirEntry[str]:
    if entry.is_symlink():
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):
            raise DataError(f"{shown(entry.path)}: link to nothing or to itself; remove it or repair it") from None
        inside = target.is_relative_to(root.resolve())
        if not inside or Path(entry.path).parent.resolve().is_relative_to(target):
            raise DataError(
                f"{shown(entry.path)}: link that {'loops' if inside else 'leaves the set'}, to {shown(target)}; "
                "expected the file or folder itself; put it there"
            )
    return entry


def _decodable(entry: os.DirEntry[str]) -> os.DirEntry[str]:
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError(f"{shown(entry.path)}: the name holds bytes that are not UTF-8; rename it") from None
    return entry


def _index(folder: os.DirEntry[str]) -> int:
    if not (folder.name.isascii() and folder.name.isdecimal()):
        raise DataError(
            f"{shown(folder.path)}: found folder '{shown(folder.name)}', expected an integer (layout index); "
            "rename it, or set layout: wnid"
        )
    return int(folder.name)


def _label(folder: os.DirEntry[str], layout: Layout, known: dict[str, int]) -> int:
    first = ", ".join(list(known)[:3]) + (", ..." if len(known) > 3 else "")
    if layout == "wnid":
        if folder.name not in known:
            hint = "; integer folders need layout: index" if folder.name.isdecimal() else ""
            raise DataError(
                f"{shown(folder.path)}: found folder '{shown(folder.name)}', expected one of the {len(known)} classes "
                f"of the train set ({first}); rename or remove it{hint}"
            )
        return known[folder.name]
    label = _index(folder)
    if label >= len(known):
        raise DataError(
            f"{shown(folder.path)}: found index {label}, expected 0 to {len(known) - 1} (the classes of the train set: "
            f"{first}); rename or remove the folder"
        )
    # A train set whose own folders are integers: sorted as text, its tenth class is not "10".
    if known.get(folder.name, label) != label:
        raise DataError(
            f"{shown(folder.path)}: found '{folder.name}', which the train set has as the name of class "
            f"{known[folder.name]}, expected an index; set layout: wnid"
        )
    return label


def _refuse_two_folders_of_one_class(root: Path, labels: dict[str, int]) -> None:
    seen: dict[int, str] = {}
    for name, label in labels.items():
        if label in seen:
            raise DataError(
                f"{shown(root)}: folders {seen[label]!r} and {name!r} are both class {label}; keep one of them"
            )
        seen[label] = name


def _measure_all(paths: list[Path], workers: int, progress: Progress | None) -> Iterator[Measured]:
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    done = 0
    small = workers > 1 and sum(path.stat().st_size for path in paths) < ALONE
    for measured in _chunks_measured(chunks, 1 if small else workers):
        yield from measured
        done += len(measured)
        if progress:
            progress(done, len(paths))


def _chunks_measured(chunks: list[list[Path]], workers: int) -> Iterator[list[Measured]]:
    if workers <= 1:
        yield from map(_measure_chunk, chunks)
        return
    # Not forked: the caller may hold threads (torch, progress bars).
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=end_worker_with_parent) as pool:
        yield from pool.map(_measure_chunk, chunks)


def _measure_chunk(paths: list[Path]) -> list[Measured]:
    return [measure(path) for path in paths]
