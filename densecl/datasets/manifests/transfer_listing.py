"""List the images of an entry of `transfer` with their classes, masks and boxes, and count the
other files; no image is opened.

Layouts: `folders` is any folder of images or of folders of images; `voc` is PASCAL VOC's
(JPEGImages, SegmentationClass, Annotations, ImageSets), `ade20k` ADEChallengeData2016's
(images/<split>, annotations/<split>).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from densecl.config.probe_params import TransferParams
from densecl.datasets.manifests.transfer_files import (
    BOXES,
    NO_FILES,
    SideFiles,
    list_boxes,
    list_masks,
    list_names,
)
from densecl.datasets.manifests.voc_lists import read_voc_list
from densecl.datasets.storage.filenames import find_litter, to_printable
from densecl.datasets.storage.image_root import ImageRoot, open_image_root
from densecl.datasets.storage.skipped_files import describe_extension
from densecl.errors import DataError

NOT_IN_SPLIT = "not in the split"
UNUSED_FOLDER = "in folders that the layout does not use"
MASK_WITHOUT_IMAGE = "mask without an image"
BOXES_WITHOUT_IMAGE = "boxes without an image"
ADE20K_SPLITS = ("training", "validation")
BACKGROUND = "background"  # of object masks: the class of what is no object


class TransferImage(NamedTuple):
    """An image and what belongs to it; "" for what it does not have.

    `path` is relative to the root, `mask` to the folder of masks, `boxes` to the folder of boxes.
    """

    path: str
    class_name: str = ""
    mask: str = ""
    boxes: str = ""


class TransferListing(NamedTuple):
    """The images sorted by path, the other files by reason, and what a reader should know."""

    images: list[TransferImage]
    skipped: Counter[str]
    notes: tuple[str, ...] = ()


def check_transfer_root(params: TransferParams) -> None:
    """DataError if the entry's folders are not there."""
    list_transfer(params)


def list_transfer(params: TransferParams) -> TransferListing:
    """Every image of an entry. DataError states the path, what was found and what to do."""
    listing = LAYOUTS[params.layout](params)
    if not listing.images:
        raise DataError(
            f"{to_printable(params.root)}: found no image in layout {params.layout}; correct the "
            "root, the layout or the split"
        )
    return listing


def _list_folders(params: TransferParams) -> TransferListing:
    root = Path(params.root)
    image_root = open_image_root(root)
    own = _get_places(params)
    folders = [name for name in image_root.list_folders() if (root / name).resolve() not in own]
    contents = {folder: image_root.read_folder(folder) for folder in ("", *folders)}
    names = {folder: content.images for folder, content in contents.items()}
    if params.mask_values == "object" and names.get(BACKGROUND):
        raise DataError(
            f"{to_printable(root / BACKGROUND)}: found a class named {BACKGROUND}, expected "
            "another name: with mask_values: object it is the name of what is no object; rename "
            "the folder"
        )
    masks, skipped = _list_beside(params, params.masks, names, list_masks, MASK_WITHOUT_IMAGE)
    boxes, others = _list_beside(params, params.boxes, names, list_boxes, BOXES_WITHOUT_IMAGE)
    of_root = sum((content.skipped for content in contents.values()), Counter[str]())
    of_root -= _count_own(root, image_root, folders, own)
    for place, counts in ((params.root, of_root), (params.masks, skipped)):
        if params.boxes and place and Path(params.boxes).resolve() == Path(place).resolve():
            del counts[describe_extension(f"any{BOXES}")]  # the boxes; `counts` has the others
            others = Counter({BOXES_WITHOUT_IMAGE: others[BOXES_WITHOUT_IMAGE]})
    images = [
        TransferImage(
            f"{folder}/{name}" if folder else name,
            folder,
            masks.get(folder, NO_FILES).find(name),
            boxes.get(folder, NO_FILES).find(name),
        )
        for folder in names
        for name in names[folder]
    ]
    if images and params.masks and not any(image.mask for image in images):
        _refuse_unused(params.masks, "mask", masks, images)
    if images and params.boxes and not any(image.boxes for image in images):
        _refuse_unused(params.boxes, "annotation", boxes, images)
    return TransferListing(sorted(images), of_root + skipped + others)


def _refuse_unused(
    place: str, kind: str, files: Mapping[str, SideFiles], images: Sequence[TransferImage]
) -> None:
    found = sorted(path for listed in files.values() for path in listed.paths.values())
    example = f", such as {to_printable(found[0])}" if found else ""
    raise DataError(
        f"{to_printable(place)}: found no {kind} of the {len(images):,} images in {len(found):,} "
        f"files{example}; expected the name of its image under the same folder, such as "
        f"{to_printable(str(PurePosixPath(images[0].path).with_suffix('')))}; correct the place or "
        "the names"
    )


def _get_places(params: TransferParams) -> set[Path]:
    """The folders of an entry's images, masks and boxes."""
    return {Path(path).resolve() for path in (params.root, params.masks, params.boxes) if path}


def _count_own(
    place: Path, image_root: ImageRoot, folders: Iterable[str], own: Iterable[Path]
) -> Counter[str]:
    """What the counts of a place's folders, and of its hidden ones, have of the entry's own places
    below them, which are listed on their own.
    """
    counts = Counter[str]()
    for folder in ("", *folders):
        inside = (place / folder).resolve()
        below = {path for path in own if inside in path.parents}
        for path in below:
            parts = path.relative_to(inside).parts
            if below.isdisjoint(path.parents) and (folder or find_litter(parts[:1])):
                counts += image_root.count_below(PurePosixPath(folder, *parts).as_posix())
    return counts


def _list_beside(
    params: TransferParams,
    place: str | None,
    images: Mapping[str, Sequence[str]],
    list_files: Callable[[ImageRoot, str], SideFiles],
    unused: str,
) -> tuple[dict[str, SideFiles], Counter[str]]:
    """Masks or boxes of layout folders by their folder, and the files there that no image uses;
    `images` are by their folder too.
    """
    if place is None:
        return {}, Counter()
    root = open_image_root(Path(place))
    own = _get_places(params)
    found, skipped = dict[str, SideFiles](), Counter[str]()
    for folder in ("", *root.list_folders()):
        inside = (Path(place) / folder).resolve()
        if folder and folder not in images and any(path.is_relative_to(inside) for path in own):
            continue
        found[folder] = list_files(root, folder)
        skipped += found[folder].skipped
        skipped[unused] += found[folder].count_unused(images.get(folder, ()))
    return found, skipped - _count_own(Path(place), root, filter(None, found), own)


def _list_voc(params: TransferParams) -> TransferListing:
    root = Path(params.root)
    image_root = _open_with(root, ("JPEGImages",), "VOCdevkit/VOC2012")
    content, folders = image_root.read_folder("JPEGImages"), image_root.list_folders()
    masks, boxes = (
        list_files(image_root, folder) if folder in folders else NO_FILES
        for list_files, folder in ((list_masks, "SegmentationClass"), (list_boxes, "Annotations"))
    )
    names, notes = content.images, list[str]()
    if params.split:
        listed = read_voc_list(root, params.split)
        names = listed.select(content.images)
        if absent := listed.count_absent(names):
            total = len(listed.names)
            notes.append(f"{absent:,} of the {total:,} images of the split have no file")
    skipped = content.skipped + masks.skipped + boxes.skipped
    skipped += _count_unused(
        image_root, ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets")
    )
    skipped[NOT_IN_SPLIT] += len(content.images) - len(names)
    skipped[MASK_WITHOUT_IMAGE] += masks.count_unused(content.images)
    skipped[BOXES_WITHOUT_IMAGE] += boxes.count_unused(content.images)
    images = [
        TransferImage(f"JPEGImages/{name}", "", masks.find(name), boxes.find(name))
        for name in names
    ]
    return TransferListing(images, +skipped, tuple(notes))


def _list_ade20k(params: TransferParams) -> TransferListing:
    root = Path(params.root)
    usual = "ADEChallengeData2016, not ADE20K's full release"
    image_root = _open_with(root, ("images", "annotations"), usual)
    found, masked = image_root.list_folders("images"), image_root.list_folders("annotations")
    wanted = (params.split,) if params.split else ADE20K_SPLITS
    if not set(wanted).intersection(found):
        raise DataError(
            f"{to_printable(root / 'images')}: found the folders {', '.join(found) or 'none'}, "
            f"expected {' or '.join(wanted)}; correct the root or the split"
        )
    for split in sorted(set(wanted).intersection(found)):
        _check_among(masked, root, f"annotations/{split}", usual)
    images: list[TransferImage] = []
    skipped = _count_unused(image_root, ("images", "annotations"))
    for folder in ("images", "annotations"):
        names, litter = list_names(image_root, folder)
        skipped += litter + Counter(map(describe_extension, names))
    for split in {*found, *masked}:
        names = []
        if split in found:
            content = image_root.read_folder(f"images/{split}")
            names = content.images
            skipped += content.skipped
        masks = list_masks(image_root, f"annotations/{split}") if split in masked else NO_FILES
        skipped += masks.skipped
        skipped[MASK_WITHOUT_IMAGE] += masks.count_unused(names)
        if split in wanted:
            images += [
                TransferImage(f"images/{split}/{name}", mask=masks.find(name)) for name in names
            ]
        else:
            skipped[NOT_IN_SPLIT] += len(names)
    return TransferListing(sorted(images), +skipped)


LAYOUTS: dict[str, Callable[[TransferParams], TransferListing]] = {
    "folders": _list_folders,
    "voc": _list_voc,
    "ade20k": _list_ade20k,
}


def _open_with(root: Path, folders: Iterable[str], usual: str) -> ImageRoot:
    image_root = open_image_root(root)
    for folder in folders:
        _check_among(image_root.list_folders(), root, folder, usual)
    return image_root


def _check_among(found: Sequence[str], root: Path, folder: str, usual: str) -> None:
    """DataError if a folder of the layout is not among those found."""
    if PurePosixPath(folder).name not in found:
        raise DataError(
            f"{to_printable(root)}: found no folder {folder}; expected what is unpacked, whose "
            f"folder is usually {usual}; correct the root or the layout"
        )


def _count_unused(image_root: ImageRoot, used: Iterable[str]) -> Counter[str]:
    content = image_root.read_folder()
    skipped = content.skipped + Counter({UNUSED_FOLDER: len(content.images)})
    for folder in set(image_root.list_folders()).difference(used):
        skipped[UNUSED_FOLDER] += image_root.count_below(folder).total()
    return skipped
