"""List the images of a dataset in any layout, with their labels, and count the other files; no file
is opened.

The images are the files with an image extension directly inside class folders (layout devkit: in
the dataset's folder). The label is an index into the class list of the training set: by the
folder's name (wnid), by its integer (index) or by the devkit's ground truth (devkit), never by the
order of folders. Images of classes that the training set does not have are counted too.
"""

from collections import Counter
from collections.abc import Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from densecl.datasets.manifests import devkit as kit
from densecl.datasets.manifests.labels import (
    describe_classes,
    label_by_index,
    label_by_name,
    parse_index,
)
from densecl.datasets.storage.filenames import EXTENSIONS, to_printable
from densecl.datasets.storage.image_root import ImageRoot, list_class_folders, open_image_root
from densecl.datasets.storage.skipped_files import (
    HIDDEN,
    NOT_IN_CLASS_FOLDER,
    REPLACED,
    describe_skipped,
    describe_untrained,
)
from densecl.errors import DataError

Layout = Literal["wnid", "index", "devkit"]
LISTING_THREADS = 8  # folders listed at a time: a network file system has a high latency


class Listing(NamedTuple):
    """Path and label of each image, sorted by path; the other files below the root by reason; what
    a reader of the counts should know.
    """

    images: list[tuple[str, int]]
    skipped: Counter[str]
    notes: tuple[str, ...] = ()


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
        _find_flat_images(root, image_root)
        return
    named_by = "wnid" if layout == "wnid" else "index (0, 1, ...)"
    folders = image_root.list_folders()
    if not folders:
        images = len(image_root.read_folder().images)
        raise DataError(
            f"{to_printable(root)}: found no class folders and {images} "
            f"image files; expected one folder per class, named by its {named_by}; sort the images "
            f"into such folders, set layout: devkit (ImageNet's flat val) or correct the root"
        )
    for folder in folders:
        if layout == "index":
            parse_index(root / folder)
        if not image_root.has_image(folder):
            others = describe_skipped(image_root.read_folder(folder).skipped)
            raise DataError(
                f"{to_printable(root / folder)}: empty class folder: found no image file and "
                f"{len(image_root.list_folders(folder))} folders; expected {', '.join(EXTENSIONS)} "
                f"files directly inside; other files in it: {others}; fill it or remove it"
            )


def list_dataset(
    root: Path,
    layout: Layout,
    classes: Sequence[str],
    devkit: str | None = None,
    *,
    is_published: bool = False,
) -> Listing:
    """Every image of a class of the training set; all other files are counted.

    `is_published`: integers of folders are ImageNet-1k's. DataError: as `check_root`; no image of a
    class of the training set; a folder that is no class; a link that leaves the root or loops; a
    name that is not UTF-8.
    """
    check_root(root, layout, devkit)
    image_root = open_image_root(root)
    if layout == "devkit":
        return _list_devkit_images(root, image_root, classes, _check_devkit_given(root, devkit))
    folders = image_root.list_folders()
    notes: tuple[str, ...] = ()
    if layout == "index":
        labels, meaning = label_by_index(root, folders, classes, is_published=is_published)
        notes = (meaning,)
    else:
        labels = label_by_name(root, folders, classes)
    _check_any_trained(root, labels, len(folders), classes)
    skipped = _count_outside(image_root)
    images, untrained = [], 0
    with ThreadPoolExecutor(LISTING_THREADS) as threads:
        contents = zip(folders, threads.map(image_root.read_folder, folders), strict=True)
        for folder, content in contents:
            skipped += content.skipped
            if folder in labels:
                images += [(f"{folder}/{name}", labels[folder]) for name in content.images]
            else:
                untrained += len(content.images)
    skipped[describe_untrained(len(folders) - len(labels))] = untrained
    return Listing(sorted(images), +skipped, notes)


def _check_any_trained(root: Path, trained: Sized, found: int, classes: Sequence[str]) -> None:
    if not trained:
        raise DataError(
            f"{to_printable(root)}: found {found} classes, none of them of the "
            f"{describe_classes(classes)}; correct the root, or rename the class folders"
        )


def _count_outside(image_root: ImageRoot) -> Counter[str]:
    """Files that are in no class folder, by reason."""
    content = image_root.read_folder()
    counts = Counter({NOT_IN_CLASS_FOLDER: len(content.images)})
    for reason, count in content.skipped.items():
        counts[reason if reason in (HIDDEN, REPLACED) else NOT_IN_CLASS_FOLDER] += count
    return counts


def _list_devkit_images(
    root: Path, image_root: ImageRoot, classes: Sequence[str], devkit: Path
) -> Listing:
    folder, names = _find_flat_images(root, image_root)
    wnids = kit.read_ground_truth(devkit)
    label_of_class = {name: label for label, name in enumerate(classes)}
    images, untrained = [], Counter[str]()
    for name in names:
        wnid = _find_wnid(root / folder / name, wnids)
        if wnid in label_of_class:
            images.append(((f"{folder}/{name}" if folder else name), label_of_class[wnid]))
        else:
            untrained[wnid] += 1
    _check_any_trained(root, images, len(untrained), classes)
    skipped = image_root.read_folder().skipped
    if folder:
        skipped += image_root.read_folder(folder).skipped
    else:
        for subfolder in image_root.list_folders():
            skipped += image_root.count_below(subfolder)
    skipped[describe_untrained(len(untrained))] = untrained.total()
    missing = len(wnids) - len(names)
    notes = (f"{missing:,} of the ground truth's {len(wnids):,} images have no file",)
    return Listing(sorted(images), +skipped, notes if missing else ())


def _find_flat_images(root: Path, image_root: ImageRoot) -> tuple[str, list[str]]:
    """The dataset's folder itself ("") or its only subfolder, and the images directly in it."""
    folders, folder, images = image_root.list_folders(), "", image_root.read_folder().images
    if not images and len(folders) == 1:
        folder, images = folders[0], image_root.read_folder(folders[0]).images
    if not images:
        raise DataError(
            f"{to_printable(root)}: found no image files and {len(folders)} folders; expected "
            f"ILSVRC2012_val_*.JPEG directly inside (layout devkit); if the images were moved "
            "into class folders, set layout: wnid"
        )
    return folder, images


def _check_devkit_given(root: Path, devkit: str | None) -> Path:
    if devkit is None:
        raise DataError(
            f"{to_printable(root)}: layout devkit needs `devkit`: the ILSVRC2012 devkit, a folder "
            f"or its .tar.gz"
        )
    return Path(devkit)


def _find_wnid(path: Path, wnids: list[str]) -> str:
    """Class of a validation image by the devkit; `wnids` are those of image 1, 2, ..."""
    number = kit.parse_image_number(path.name)
    if not 1 <= number <= len(wnids):
        raise DataError(
            f"{to_printable(path)}: found image {number}, expected 1 to {len(wnids)} (the ground "
            f"truth)"
        )
    return wnids[number - 1]
