"""List the images of a dataset of class folders or of the flat validation archive, with their
labels, and count the other files; of these, only those of other extensions are opened.

The images are the files directly inside class folders (layout devkit: in the dataset's folder; if
`recursive`, also in folders below) that are images by their extension or their header. The label
is an index into the class list of the training set: by the folder's name (wnid), by its integer
(index) or by the devkit's ground truth (devkit), never by the order of folders. Images of classes
that the training set does not have are counted too. With the layout groups, the list is that of
the dataset's groups of classes.
"""

from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from densecl.datasets.manifests import devkit as kit
from densecl.datasets.manifests.labels import (
    describe_classes,
    label_by_group,
    label_by_index,
    label_by_map,
    label_by_name,
    parse_index,
)
from densecl.datasets.storage.filenames import EXTENSIONS, HIDDEN, SYSTEM, to_printable
from densecl.datasets.storage.folder_root import FolderContent, FollowLinks
from densecl.datasets.storage.image_root import ImageRoot, list_class_folders, open_image_root
from densecl.datasets.storage.skipped_files import (
    NOT_IN_CLASS_FOLDER,
    REPLACED,
    describe_skipped,
    describe_ungrouped,
    describe_unmapped,
    describe_untrained,
)
from densecl.errors import DataError

FolderLayout = Literal["wnid", "index", "groups", "devkit"]
NAMED_BY = {"wnid": "wnid", "index": "index (0, 1, ...)", "groups": "group of classes"}
LISTING_THREADS = 8  # folders listed at a time: a network file system has a high latency


class Listing(NamedTuple):
    """Path and label of each image, sorted by path; the other files below the root by reason; what
    a reader of the counts should know.
    """

    images: list[tuple[str, int]]
    skipped: Counter[str]
    notes: tuple[str, ...] = ()
    # Of a copy: the path that the image has in class folders, by its path here.
    names: Mapping[str, str] = MappingProxyType({})


class Summary(NamedTuple):
    """What a root holds, before labels are compared with those of the training set."""

    images: int
    classes: int
    skipped: Counter[str]


def list_classes(
    train_root: Path, *, recursive: bool = False, follow_links: FollowLinks = "anywhere"
) -> list[str]:
    """[C] sorted folder names of the training dataset; the index of a name is its label. Raises
    DataError as `check_root`, without a look at every file.
    """
    image_root = open_image_root(train_root, recursive=recursive, follow_links=follow_links)
    for folder in _list_class_folders(train_root, image_root, "wnid"):
        if not image_root.has_image(folder):
            _raise_empty(train_root, image_root, folder, image_root.read_folder(folder))
    return list_class_folders(train_root)


def check_root(
    root: Path,
    layout: FolderLayout,
    devkit: str | None = None,
    *,
    recursive: bool = False,
    follow_links: FollowLinks = "anywhere",
    class_map: Mapping[str, str] | None = None,
) -> Summary:
    """Check a dataset's root, its folders and its links without decoding images; DataError states
    the path, what was found, what was expected and what to do.

    Folders that `class_map` does not name may be without images, and of groups any: `list_dataset`
    knows which are used.
    """
    image_root = open_image_root(root, recursive=recursive, follow_links=follow_links)
    if layout == "devkit":
        wnids = kit.read_ground_truth(_check_devkit_given(root, devkit))
        folder, names = _find_flat_images(root, image_root)
        found = {_find_wnid(root / folder / name, wnids) for name in names}
        return Summary(len(names), len(found), _count_beside_flat(image_root, folder))
    folders = _list_class_folders(root, image_root, layout)
    required: Container[str] = () if layout == "groups" else folders
    if class_map is not None:
        required = class_map
    images, skipped = 0, _count_outside(image_root)
    for folder, content in _read_folders(image_root, folders):
        if layout == "index":
            parse_index(root / folder)
        if not content.images and folder in required:
            _raise_empty(root, image_root, folder, content)
        images += len(content.images)
        skipped += content.skipped
    return Summary(images, len(folders), +skipped)


def _list_class_folders(root: Path, image_root: ImageRoot, layout: FolderLayout) -> list[str]:
    folders = image_root.list_folders()
    if not folders:
        images = len(image_root.read_folder().images)
        raise DataError(
            f"{to_printable(root)}: found no class folders and {images} "
            f"image files; expected one folder per class, named by its {NAMED_BY[layout]}; sort "
            f"the images into such folders, set layout: devkit (ImageNet's flat val) or correct "
            f"the root"
        )
    return folders


def _raise_empty(root: Path, image_root: ImageRoot, folder: str, content: FolderContent) -> None:
    others = describe_skipped(content.skipped)
    raise DataError(
        f"{to_printable(root / folder)}: empty class folder: found no image file and "
        f"{len(image_root.list_folders(folder))} folders; expected {', '.join(EXTENSIONS[:6])}, "
        f"... files directly inside; other files in it: {others}; fill it or remove it, or set "
        f"recursive: true if its images are in folders below"
    )


def _read_folders(
    image_root: ImageRoot, folders: Sequence[str]
) -> Iterator[tuple[str, FolderContent]]:
    with ThreadPoolExecutor(LISTING_THREADS) as threads:
        yield from zip(folders, threads.map(image_root.read_folder, folders), strict=True)


def list_dataset(
    root: Path,
    layout: FolderLayout,
    classes: Sequence[str],
    devkit: str | None = None,
    *,
    is_published: bool = False,
    recursive: bool = False,
    follow_links: FollowLinks = "anywhere",
    class_map: Mapping[str, str] | None = None,
) -> Listing:
    """Every image of a class of the training set, or with the layout groups of a group in
    `classes`; all other files are counted.

    `is_published`: integers of folders are ImageNet-1k's. `class_map`: class of each folder that is
    used, instead of what its name says. DataError: as `check_root`; no image of a class of the
    training set; a folder that is no class; a link that may not be followed or loops; a name that
    is not UTF-8.
    """
    image_root = open_image_root(root, recursive=recursive, follow_links=follow_links)
    if layout == "devkit":
        return _list_devkit_images(root, image_root, classes, _check_devkit_given(root, devkit))
    folders = _list_class_folders(root, image_root, layout)
    notes: tuple[str, ...] = ()
    if class_map is not None:
        labels = label_by_map(root, class_map, classes)
    elif layout == "index":
        labels, meaning = label_by_index(root, folders, classes, is_published=is_published)
        notes = (meaning,)
    elif layout == "groups":
        labels = label_by_group(root, folders, classes)
    else:
        labels = label_by_name(root, folders, classes)
    _check_any_trained(root, labels, len(folders), classes)
    required: Container[str] = labels if layout == "groups" else folders
    if class_map is not None:
        required = class_map
    skipped = _count_outside(image_root)
    images, untrained, unmapped = [], 0, 0
    for folder, content in _read_folders(image_root, folders):
        if not content.images and folder in required:
            _raise_empty(root, image_root, folder, content)
        skipped += content.skipped
        if folder in labels:
            images += [(f"{folder}/{name}", labels[folder]) for name in content.images]
        elif class_map is not None and folder not in class_map:
            unmapped += len(content.images)
        else:
            untrained += len(content.images)
    outside = len(set(folders).difference(class_map)) if class_map is not None else 0
    describe = describe_ungrouped if layout == "groups" else describe_untrained
    skipped[describe(len(folders) - len(labels) - outside)] = untrained
    skipped[describe_unmapped(outside)] = unmapped
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
        counts[reason if reason in (HIDDEN, SYSTEM, REPLACED) else NOT_IN_CLASS_FOLDER] += count
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
    skipped = _count_beside_flat(image_root, folder)
    skipped[describe_untrained(len(untrained))] = untrained.total()
    missing = len(wnids) - len(names)
    notes = (f"{missing:,} of the ground truth's {len(wnids):,} images have no file",)
    return Listing(sorted(images), +skipped, notes if missing else ())


def _count_beside_flat(image_root: ImageRoot, folder: str) -> Counter[str]:
    """The files beside the images of the flat archive, which are in the root ("") or a folder."""
    skipped = image_root.read_folder().skipped
    if folder:
        return skipped + image_root.read_folder(folder).skipped
    for subfolder in image_root.list_folders():
        skipped += image_root.count_below(subfolder)
    return skipped


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
