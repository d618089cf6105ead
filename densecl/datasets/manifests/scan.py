"""A set, in any of its layouts -> manifest: one row an image file, bad files included and marked.

Read are the files directly inside class folders (layout devkit: in the set's folder) that carry an
image extension; names that start with a dot, other files and folders further down are not. The
label is an index into the class list of the train set: found by the folder's name (wnid), given by
the folder's integer (index) or by the devkit's ground truth (devkit), never by the order of
folders.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, TypeVar

import pandas as pd
import pyarrow as pa

from densecl.datasets.manifests import devkit as kit
from densecl.datasets.manifests.inspect import measure
from densecl.datasets.storage.filenames import EXTENSIONS, shown
from densecl.datasets.storage.image_root import Tree, list_classes, read, size, tree
from densecl.datasets.storage.manifest import SCHEMA
from densecl.errors import DataError
from densecl.runtime.signals import end_worker_with_parent

Layout = Literal["wnid", "index", "devkit"]
Progress = Callable[[int, int], object]
T = TypeVar("T")

CHUNK = 64  # files a task
ALONE = (
    16 * 1024**2
)  # bytes of a set, about 1.5 s of decoding: below, starting processes costs more than it saves
LISTERS = 8  # folders listed at a time: a network file system answers slowly, not seldom


def class_list(train_root: Path) -> list[str]:
    """[C] sorted folder names of the train set: the place of a name is its label. DataError as
    `check_root`.
    """
    check_root(train_root, "wnid")
    return list_classes(train_root)


def check_root(root: Path, layout: Layout, devkit: str | None = None) -> None:
    """Cheap look at a set; DataError that names the path, what was found, what is expected and what
    to do.
    """
    found = tree(root)
    if layout == "devkit":
        kit.truth(_kit(root, devkit))
        _flat(root, found)
        return
    expected = "one folder a class, " + (
        "named by its wnid" if layout == "wnid" else "named by its index (0, 1, ...)"
    )
    folders = found.folders()
    if not folders:
        hint = (
            "sort the images into such folders, set layout: devkit "
            "(ImageNet's flat val) or correct the root"
        )
        loose = len(found.images())
        raise DataError(
            f"{shown(root)}: found no class folders and {loose} image files; expected {expected}; "
            f"{hint}"
        )
    for folder in folders:
        if layout == "index":
            _index(root / folder)
        if not found.has_image(folder):
            raise DataError(
                f"{shown(root / folder)}: empty class folder: found no image file and "
                f"{len(found.folders(folder))} "
                f"folders; expected {', '.join(EXTENSIONS)} files directly inside; fill it or "
                f"remove it"
            )


def scan(
    dataset: str,
    root: Path,
    layout: Layout,
    classes: Sequence[str],
    workers: int,
    *,
    devkit: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Manifest sorted by path, the same for every number of workers; each file is hashed and
    decoded whole.

    A file that cannot be used is a row with a `problem`. `progress(done, total)` counts files.
    DataError: as `check_root`; a folder outside the class list; a link that leaves the root or
    loops; a name that is not UTF-8.
    """
    check_root(root, layout, devkit)
    files = listing(root, layout, classes, devkit)
    measured = in_parallel(measure, [root / path for path, _ in files], workers, progress)
    rows = [
        (
            f"{dataset}/{path}",
            path,
            label,
            classes[label],
            *m.probe[:2],
            m.bytes,
            m.sha256,
            m.probe.problem,
            *m[3:],
        )
        for (path, label), m in zip(files, measured, strict=True)
    ]
    columns = [
        pa.array(values, field.type)
        for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
    ]
    return pa.table(columns, schema=SCHEMA).to_pandas()


def listing(
    root: Path, layout: Layout, classes: Sequence[str], devkit: str | None = None
) -> list[tuple[str, int]]:
    """Path and label of every image file, sorted by path; no file is opened."""
    found, known = tree(root), {name: label for label, name in enumerate(classes)}
    if layout == "devkit":
        return _labelled(root, _flat(root, found), known, _kit(root, devkit))
    labels = {folder: _label(root / folder, layout, known) for folder in found.folders()}
    _refuse_two_folders_of_one_class(root, labels)
    with ThreadPoolExecutor(LISTERS) as threads:
        names = zip(labels.items(), threads.map(found.images, labels), strict=True)
        return sorted(
            (f"{folder}/{name}", label) for (folder, label), images in names for name in images
        )


def in_parallel(
    act: Callable[[Path], T], paths: list[Path], workers: int, progress: Progress | None = None
) -> Iterator[T]:
    """`act` of every path in order, in processes where the files are worth starting them."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    done = 0
    for results in _results(act, chunks, 1 if workers > 1 and _few(paths) else workers):
        yield from results
        done += len(results)
        if progress:
            progress(done, len(paths))


def digest(path: Path) -> str:
    """SHA-256 of the file's content in hex; OSError."""
    import hashlib

    return hashlib.sha256(read(path)).hexdigest()


def _flat(root: Path, found: Tree) -> list[str]:
    """Paths of the images in the set's folder itself, or in the one folder that it holds."""
    inner, images = found.folders(), found.images()
    if not images and len(inner) == 1:
        images = [f"{inner[0]}/{name}" for name in found.images(inner[0])]
    if not images:
        raise DataError(
            f"{shown(root)}: found no image files and {len(inner)} folders; expected "
            f"ILSVRC2012_val_*.JPEG directly "
            "inside (layout devkit); after the usual move into class folders set layout: wnid"
        )
    return images


def _labelled(
    root: Path, paths: list[str], known: dict[str, int], devkit: Path
) -> list[tuple[str, int]]:
    wnids = kit.truth(devkit)
    rows = []
    for path in paths:
        number = kit.number(path.rpartition("/")[2])
        if not 1 <= number <= len(wnids):
            raise DataError(
                f"{shown(root / path)}: found image {number}, expected 1 to {len(wnids)} (the "
                f"ground truth)"
            )
        if wnids[number - 1] not in known:
            raise DataError(
                f"{shown(root / path)}: its class {wnids[number - 1]} is none of the {len(known)} "
                f"classes "
                f"of the train set ({_first(known)}); remove it"
            )
        rows.append((path, known[wnids[number - 1]]))
    return sorted(rows)


def _kit(root: Path, devkit: str | None) -> Path:
    if devkit is None:
        raise DataError(
            f"{shown(root)}: layout devkit needs `devkit`: the ILSVRC2012 devkit, a folder or its "
            f".tar.gz"
        )
    return Path(devkit)


def _index(folder: Path) -> int:
    if not (folder.name.isascii() and folder.name.isdecimal()):
        raise DataError(
            f"{shown(folder)}: found folder '{shown(folder.name)}', expected an integer (layout "
            f"index); "
            "rename it, or set layout: wnid"
        )
    return int(folder.name)


def _first(known: dict[str, int]) -> str:
    return ", ".join(list(known)[:3]) + (", ..." if len(known) > 3 else "")


def _label(folder: Path, layout: Layout, known: dict[str, int]) -> int:
    if layout == "wnid":
        if folder.name not in known:
            hint = "; integer folders need layout: index" if folder.name.isdecimal() else ""
            raise DataError(
                f"{shown(folder)}: found folder '{shown(folder.name)}', expected one of the "
                f"{len(known)} classes "
                f"of the train set ({_first(known)}); rename or remove it{hint}"
            )
        return known[folder.name]
    label = _index(folder)
    if label >= len(known):
        raise DataError(
            f"{shown(folder)}: found index {label}, expected 0 to {len(known) - 1} (the classes "
            f"of the train set: "
            f"{_first(known)}); rename or remove the folder"
        )
    # A train set whose own folders are integers: sorted as text, its tenth class is not "10".
    if known.get(folder.name, label) != label:
        raise DataError(
            f"{shown(folder)}: found '{folder.name}', which the train set has as the name of class "
            f"{known[folder.name]}, expected an index; set layout: wnid"
        )
    return label


def _refuse_two_folders_of_one_class(root: Path, labels: dict[str, int]) -> None:
    seen: dict[int, str] = {}
    for name, label in labels.items():
        if label in seen:
            raise DataError(
                f"{shown(root)}: folders {seen[label]!r} and {name!r} are both class {label}; "
                f"keep one of them"
            )
        seen[label] = name


def _few(paths: list[Path]) -> bool:
    left = ALONE
    for path in paths:
        try:
            left -= size(path)
        except OSError:
            continue  # a row of its own with the reason, later
        if left < 0:
            return False
    return True


def _results(act: Callable[[Path], T], chunks: list[list[Path]], workers: int) -> Iterator[list[T]]:
    if workers <= 1:
        yield from (_each(act, chunk) for chunk in chunks)
        return
    # Not forked: the caller may hold threads (torch, progress bars).
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=end_worker_with_parent) as pool:
        yield from pool.map(_each, [act] * len(chunks), chunks)


def _each(act: Callable[[Path], T], paths: list[Path]) -> list[T]:
    return [act(path) for path in paths]
