"""Scan a dataset in any layout into a manifest: one row per image file; invalid files are included
and marked.

The images of a dataset are the files with an image extension directly inside class folders (layout
devkit: in the dataset's folder); hidden files, other files and deeper folders are skipped. The
label is an index into the class list of the training set: the folder's name (wnid), the folder's
integer (index) or the devkit's ground truth (devkit), never the order of folders.
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import accumulate
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

CHUNK_SIZE = 64  # files per task and per report of progress
# Bytes of a dataset, about 1.5 s of decoding: below, starting processes costs more than it saves.
SERIAL_BYTES = 16 * 1024**2
LISTING_THREADS = 8  # folders listed at a time: a network file system has a high latency


def list_classes(train_root: Path) -> list[str]:
    """[C] sorted folder names of the training dataset; the index of a name is its label. Raises
    DataError as `check_root`.
    """
    check_root(train_root, "wnid")
    return list_class_folders(train_root)


def check_root(root: Path, layout: Layout, devkit: str | None = None) -> None:
    """Check a dataset's root without opening files; DataError states the path, what was found, what
    was expected and what to do.
    """
    image_root = open_image_root(root)
    if layout == "devkit":
        kit.read_ground_truth(_check_devkit_given(root, devkit))
        _list_flat_images(root, image_root)
        return
    named_by = "wnid" if layout == "wnid" else "index (0, 1, ...)"
    folders = image_root.list_folders()
    if not folders:
        raise DataError(
            f"{to_printable(root)}: found no class folders and {len(image_root.list_images())} "
            f"image files; expected one folder per class, named by its {named_by}; sort the images "
            f"into such folders, set layout: devkit (ImageNet's flat val) or correct the root"
        )
    for folder in folders:
        if layout == "index":
            _parse_index(root / folder)
        if not image_root.has_image(folder):
            raise DataError(
                f"{to_printable(root / folder)}: empty class folder: found no image file and "
                f"{len(image_root.list_folders(folder))} folders; expected {', '.join(EXTENSIONS)} "
                f"files directly inside; fill it or remove it"
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
    """Manifest sorted by path, independent of the number of workers; each file is hashed and
    decoded completely.

    A file that cannot be used is a row with a `problem`. `progress(done, total)` counts files.
    DataError: as `check_root`; a folder outside the class list; a link that leaves the root or
    loops; a name that is not UTF-8.
    """
    check_root(root, layout, devkit)
    files = list_labelled_files(root, layout, classes, devkit)
    paths = [root / path for path, _ in files]
    infos = run_in_parallel(inspect_file, paths, workers, progress)
    rows = [
        (f"{dataset}/{path}", path, label, classes[label], *info)
        for (path, label), info in zip(files, infos, strict=True)
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
    image_root = open_image_root(root)
    label_of_class = {name: label for label, name in enumerate(classes)}
    if layout == "devkit":
        paths = _list_flat_images(root, image_root)
        wnids = kit.read_ground_truth(_check_devkit_given(root, devkit))
        return sorted((path, _label_image(root / path, wnids, label_of_class)) for path in paths)
    label_folder = _label_by_wnid if layout == "wnid" else _label_by_index
    labels = {
        folder: label_folder(root / folder, label_of_class) for folder in image_root.list_folders()
    }
    last_folders = {label: folder for folder, label in labels.items()}
    for folder, label in labels.items():
        if last_folders[label] != folder:
            raise DataError(
                f"{to_printable(root)}: folders {folder!r} and {last_folders[label]!r} are both "
                f"class {label}; keep one of them"
            )
    with ThreadPoolExecutor(LISTING_THREADS) as threads:
        names = zip(labels.items(), threads.map(image_root.list_images, labels), strict=True)
        return sorted(
            (f"{folder}/{name}", label) for (folder, label), images in names for name in images
        )


def run_in_parallel(
    function: Callable[[Path], T], paths: list[Path], workers: int, progress: Progress | None = None
) -> Iterator[T]:
    """Apply `function` to every path in order, in several processes if there are enough files."""
    with ExitStack() as stack:
        results: Iterator[T] = map(function, paths)
        if workers > 1 and any(total > SERIAL_BYTES for total in accumulate(_iter_sizes(paths))):
            # Not forked: the caller may hold threads (torch, progress bars).
            context = multiprocessing.get_context("spawn")
            pool = ProcessPoolExecutor(workers, context, initializer=exit_worker_with_parent)
            results = stack.enter_context(pool).map(function, paths, chunksize=CHUNK_SIZE)
        for done, result in enumerate(results, 1):
            yield result
            if progress and (done % CHUNK_SIZE == 0 or done == len(paths)):
                progress(done, len(paths))


def _iter_sizes(paths: list[Path]) -> Iterator[int]:
    """Sizes in bytes; a file that cannot be read is reported when it is inspected."""
    for path in paths:
        with suppress(OSError):
            yield get_file_size(path)


def hash_file(path: Path) -> str:
    """SHA-256 of the file's content in hex; OSError."""
    return hashlib.sha256(read_file(path)).hexdigest()


def _list_flat_images(root: Path, image_root: ImageRoot) -> list[str]:
    """Paths of the images in the dataset's folder itself, or in its only subfolder."""
    folders, images = image_root.list_folders(), image_root.list_images()
    if not images and len(folders) == 1:
        images = [f"{folders[0]}/{name}" for name in image_root.list_images(folders[0])]
    if not images:
        raise DataError(
            f"{to_printable(root)}: found no image files and {len(folders)} folders; expected "
            f"ILSVRC2012_val_*.JPEG directly inside (layout devkit); if the images were moved "
            "into class folders, set layout: wnid"
        )
    return images


def _check_devkit_given(root: Path, devkit: str | None) -> Path:
    if devkit is None:
        raise DataError(
            f"{to_printable(root)}: layout devkit needs `devkit`: the ILSVRC2012 devkit, a folder "
            f"or its .tar.gz"
        )
    return Path(devkit)


def _label_image(path: Path, wnids: list[str], label_of_class: dict[str, int]) -> int:
    """Label of a validation image by the devkit; `wnids` are those of image 1, 2, ..."""
    number = kit.parse_image_number(path.name)
    if not 1 <= number <= len(wnids):
        raise DataError(
            f"{to_printable(path)}: found image {number}, expected 1 to {len(wnids)} (the ground "
            f"truth)"
        )
    wnid = wnids[number - 1]
    if wnid not in label_of_class:
        raise DataError(
            f"{to_printable(path)}: its class {wnid} is none of the "
            f"{_describe_classes(label_of_class)}; remove it"
        )
    return label_of_class[wnid]


def _label_by_wnid(folder: Path, label_of_class: dict[str, int]) -> int:
    name = folder.name
    if name not in label_of_class:
        hint = "; integer folders need layout: index" if name.isdecimal() else ""
        raise DataError(
            f"{to_printable(folder)}: found folder '{to_printable(name)}', expected one of the "
            f"{_describe_classes(label_of_class)}; rename or remove it{hint}"
        )
    return label_of_class[name]


def _label_by_index(folder: Path, label_of_class: dict[str, int]) -> int:
    label = _parse_index(folder)
    if label >= len(label_of_class):
        raise DataError(
            f"{to_printable(folder)}: found index {label}, expected 0 to "
            f"{len(label_of_class) - 1} (the {_describe_classes(label_of_class)}); rename or "
            f"remove the folder"
        )
    # A training set whose own folders are integers: sorted as text, its tenth class is not "10".
    if label_of_class.get(folder.name, label) != label:
        raise DataError(
            f"{to_printable(folder)}: found '{folder.name}', which the train set has as the name "
            f"of class {label_of_class[folder.name]}, expected an index; set layout: wnid"
        )
    return label


def _parse_index(folder: Path) -> int:
    if not (folder.name.isascii() and folder.name.isdecimal()):
        raise DataError(
            f"{to_printable(folder)}: found folder '{to_printable(folder.name)}', expected an "
            f"integer (layout index); rename it, or set layout: wnid"
        )
    return int(folder.name)


def _describe_classes(label_of_class: dict[str, int]) -> str:
    names = [*list(label_of_class)[:3], *(["..."] if len(label_of_class) > 3 else [])]
    return f"{len(label_of_class)} classes of the train set ({', '.join(names)})"
