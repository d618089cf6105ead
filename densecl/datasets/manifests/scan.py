"""A dataset, in any layout -> manifest: one row per image file; bad files are included and marked.

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
from densecl.datasets.manifests.inspect import inspect_file
from densecl.datasets.storage.filenames import EXTENSIONS, to_printable
from densecl.datasets.storage.image_root import (
    ImageRoot,
    get_file_size,
    list_class_folders,
    open_image_root,
    read_file,
)
from densecl.datasets.storage.manifest import SCHEMA
from densecl.errors import DataError
from densecl.runtime.signals import exit_worker_with_parent

Layout = Literal["wnid", "index", "devkit"]
Progress = Callable[[int, int], object]
T = TypeVar("T")

CHUNK_SIZE = 64  # files a task
SERIAL_BYTES = (
    16 * 1024**2
)  # bytes of a set, about 1.5 s of decoding: below, starting processes costs more than it saves
LISTING_THREADS = 8  # folders listed at a time: a network file system answers slowly, not seldom


def list_classes(train_root: Path) -> list[str]:
    """[C] sorted folder names of the train set: the place of a name is its label. DataError as
    `check_root`.
    """
    check_root(train_root, "wnid")
    return list_class_folders(train_root)


def check_root(root: Path, layout: Layout, devkit: str | None = None) -> None:
    """Cheap check of a dataset; DataError that names the path, what was found, what is expected and
    what to do.
    """
    image_root = open_image_root(root)
    if layout == "devkit":
        kit.read_ground_truth(_check_devkit_given(root, devkit))
        _list_flat_images(root, image_root)
        return
    expected = "one folder per class, " + (
        "named by its wnid" if layout == "wnid" else "named by its index (0, 1, ...)"
    )
    folders = image_root.list_folders()
    if not folders:
        hint = (
            "sort the images into such folders, set layout: devkit "
            "(ImageNet's flat val) or correct the root"
        )
        loose_images = len(image_root.list_images())
        raise DataError(
            f"{to_printable(root)}: found no class folders and {loose_images} image files; "
            f"expected {expected}; "
            f"{hint}"
        )
    for folder in folders:
        if layout == "index":
            _parse_index(root / folder)
        if not image_root.has_image(folder):
            raise DataError(
                f"{to_printable(root / folder)}: empty class folder: found no image file and "
                f"{len(image_root.list_folders(folder))} "
                f"folders; expected {', '.join(EXTENSIONS)} files directly inside; fill it or "
                f"remove it"
            )


def scan_dataset(
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
    files = list_labelled_files(root, layout, classes, devkit)
    file_infos = run_in_parallel(
        inspect_file, [root / path for path, _ in files], workers, progress
    )
    rows = [
        (
            f"{dataset}/{path}",
            path,
            label,
            classes[label],
            *info.image_info[:2],
            info.bytes,
            info.sha256,
            info.image_info.problem,
            *info[3:],
        )
        for (path, label), info in zip(files, file_infos, strict=True)
    ]
    columns = [
        pa.array(values, field.type)
        for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
    ]
    result: pd.DataFrame = pa.table(columns, schema=SCHEMA).to_pandas()
    return result


def list_labelled_files(
    root: Path, layout: Layout, classes: Sequence[str], devkit: str | None = None
) -> list[tuple[str, int]]:
    """Path and label of every image file, sorted by path; no file is opened."""
    image_root, label_of_class = (
        open_image_root(root),
        {name: label for label, name in enumerate(classes)},
    )
    if layout == "devkit":
        return _label_devkit_images(
            root,
            _list_flat_images(root, image_root),
            label_of_class,
            _check_devkit_given(root, devkit),
        )
    labels = {
        folder: _resolve_label(root / folder, layout, label_of_class)
        for folder in image_root.list_folders()
    }
    _check_unique_labels(root, labels)
    with ThreadPoolExecutor(LISTING_THREADS) as threads:
        names = zip(labels.items(), threads.map(image_root.list_images, labels), strict=True)
        return sorted(
            (f"{folder}/{name}", label) for (folder, label), images in names for name in images
        )


def run_in_parallel(
    function: Callable[[Path], T], paths: list[Path], workers: int, progress: Progress | None = None
) -> Iterator[T]:
    """`function` of every path in order, in processes where the files are worth starting them."""
    chunks = [paths[start : start + CHUNK_SIZE] for start in range(0, len(paths), CHUNK_SIZE)]
    done = 0
    for results in _iter_results(
        function, chunks, 1 if workers > 1 and _is_small(paths) else workers
    ):
        yield from results
        done += len(results)
        if progress:
            progress(done, len(paths))


def hash_file(path: Path) -> str:
    """SHA-256 of the file's content in hex; OSError."""
    import hashlib

    return hashlib.sha256(read_file(path)).hexdigest()


def _list_flat_images(root: Path, image_root: ImageRoot) -> list[str]:
    """Paths of the images in the set's folder itself, or in the one folder that it holds."""
    folders, images = image_root.list_folders(), image_root.list_images()
    if not images and len(folders) == 1:
        images = [f"{folders[0]}/{name}" for name in image_root.list_images(folders[0])]
    if not images:
        raise DataError(
            f"{to_printable(root)}: found no image files and {len(folders)} folders; expected "
            f"ILSVRC2012_val_*.JPEG directly "
            "inside (layout devkit); after the usual move into class folders set layout: wnid"
        )
    return images


def _label_devkit_images(
    root: Path, paths: list[str], label_of_class: dict[str, int], devkit: Path
) -> list[tuple[str, int]]:
    wnids = kit.read_ground_truth(devkit)
    rows = []
    for path in paths:
        number = kit.parse_image_number(path.rpartition("/")[2])
        if not 1 <= number <= len(wnids):
            raise DataError(
                f"{to_printable(root / path)}: found image {number}, expected 1 to {len(wnids)} "
                f"(the "
                f"ground truth)"
            )
        if wnids[number - 1] not in label_of_class:
            raise DataError(
                f"{to_printable(root / path)}: its class {wnids[number - 1]} is none of the "
                f"{len(label_of_class)} "
                f"classes "
                f"of the train set ({_format_examples(label_of_class)}); remove it"
            )
        rows.append((path, label_of_class[wnids[number - 1]]))
    return sorted(rows)


def _check_devkit_given(root: Path, devkit: str | None) -> Path:
    if devkit is None:
        raise DataError(
            f"{to_printable(root)}: layout devkit needs `devkit`: the ILSVRC2012 devkit, a folder "
            f"or its "
            f".tar.gz"
        )
    return Path(devkit)


def _parse_index(folder: Path) -> int:
    if not (folder.name.isascii() and folder.name.isdecimal()):
        raise DataError(
            f"{to_printable(folder)}: found folder '{to_printable(folder.name)}', expected an "
            f"integer (layout "
            f"index); "
            "rename it, or set layout: wnid"
        )
    return int(folder.name)


def _format_examples(label_of_class: dict[str, int]) -> str:
    return ", ".join(list(label_of_class)[:3]) + (", ..." if len(label_of_class) > 3 else "")


def _resolve_label(folder: Path, layout: Layout, label_of_class: dict[str, int]) -> int:
    if layout == "wnid":
        if folder.name not in label_of_class:
            hint = "; integer folders need layout: index" if folder.name.isdecimal() else ""
            raise DataError(
                f"{to_printable(folder)}: found folder '{to_printable(folder.name)}', expected "
                f"one of the "
                f"{len(label_of_class)} classes "
                f"of the train set ({_format_examples(label_of_class)}); rename or remove it{hint}"
            )
        return label_of_class[folder.name]
    label = _parse_index(folder)
    if label >= len(label_of_class):
        raise DataError(
            f"{to_printable(folder)}: found index {label}, expected 0 to "
            f"{len(label_of_class) - 1} (the classes "
            f"of the train set: "
            f"{_format_examples(label_of_class)}); rename or remove the folder"
        )
    # A train set whose own folders are integers: sorted as text, its tenth class is not "10".
    if label_of_class.get(folder.name, label) != label:
        raise DataError(
            f"{to_printable(folder)}: found '{folder.name}', which the train set has as the name "
            f"of class "
            f"{label_of_class[folder.name]}, expected an index; set layout: wnid"
        )
    return label


def _check_unique_labels(root: Path, labels: dict[str, int]) -> None:
    folder_of_label: dict[int, str] = {}
    for name, label in labels.items():
        if label in folder_of_label:
            raise DataError(
                f"{to_printable(root)}: folders {folder_of_label[label]!r} and {name!r} are both "
                f"class {label}; "
                f"keep one of them"
            )
        folder_of_label[label] = name


def _is_small(paths: list[Path]) -> bool:
    bytes_left = SERIAL_BYTES
    for path in paths:
        try:
            bytes_left -= get_file_size(path)
        except OSError:
            continue  # a row of its own with the reason, later
        if bytes_left < 0:
            return False
    return True


def _iter_results(
    function: Callable[[Path], T], chunks: list[list[Path]], workers: int
) -> Iterator[list[T]]:
    if workers <= 1:
        yield from (_run_chunk(function, chunk) for chunk in chunks)
        return
    # Not forked: the caller may hold threads (torch, progress bars).
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, initializer=exit_worker_with_parent) as pool:
        yield from pool.map(_run_chunk, [function] * len(chunks), chunks)


def _run_chunk(function: Callable[[Path], T], paths: list[Path]) -> list[T]:
    return [function(path) for path in paths]
