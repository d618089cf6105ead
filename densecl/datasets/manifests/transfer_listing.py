"""List the images of an entry of `transfer` with their classes, masks and boxes, and count the
other files; no image is opened.

Layouts: `folders` is any folder of images or of folders of images; `voc` is PASCAL VOC's
(JPEGImages, SegmentationClass, Annotations, ImageSets), `ade20k` ADEChallengeData2016's
(images/<split>, annotations/<split>).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from densecl.config.probe_params import TransferParams
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_root import (
    ImageRoot,
    get_file_size,
    open_image_root,
    read_file,
)
from densecl.errors import DataError

NOT_IN_SPLIT = "not in the split"
UNUSED_FOLDER = "in folders that the layout does not use"
MASK_WITHOUT_IMAGE = "mask without an image"
VOC_LISTS = ("ImageSets/Segmentation", "ImageSets/Main")
ADE20K_SPLITS = ("training", "validation")


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
    own = [Path(path).resolve() for path in (params.masks, params.boxes) if path]
    folders = [name for name in image_root.list_folders() if (root / name).resolve() not in own]
    content = image_root.read_folder()
    paths, skipped = list(content.images), content.skipped
    for folder in folders:
        content = image_root.read_folder(folder)
        paths += [f"{folder}/{name}" for name in content.images]
        skipped += content.skipped
    masks = _list_masks(open_image_root(Path(params.masks)), folders) if params.masks else set()
    find_boxes = _find_files(Path(params.boxes), ".xml") if params.boxes else None
    images = [
        TransferImage(
            path,
            PurePosixPath(path).parent.name,
            _replace_suffix(path, ".png") if _replace_suffix(path, ".png") in masks else "",
            find_boxes(path) if find_boxes else "",
        )
        for path in sorted(paths)
    ]
    skipped[MASK_WITHOUT_IMAGE] += len(masks - {image.mask for image in images})
    return TransferListing(images, +skipped)


def _list_masks(masks: ImageRoot, folders: Iterable[str]) -> set[str]:
    """PNG files directly in a folder of masks and in these folders of it."""
    known = set(masks.list_folders())
    names = {name for name in masks.read_folder().images if name.endswith(".png")}
    for folder in known.intersection(folders):
        names |= {
            f"{folder}/{name}" for name in masks.read_folder(folder).images if name.endswith(".png")
        }
    return names


def _list_voc(params: TransferParams) -> TransferListing:
    root = Path(params.root)
    image_root = _open_with(root, "JPEGImages", "VOCdevkit/VOC2012")
    content = image_root.read_folder("JPEGImages")
    has_masks = "SegmentationClass" in image_root.list_folders()
    masks = set(image_root.read_folder("SegmentationClass").images if has_masks else ())
    find_boxes = _find_files(root / "Annotations", ".xml")
    listed = _read_voc_list(root, params.split) if params.split else None
    images = []
    for name in content.images:
        stem = PurePosixPath(name).stem
        if listed is None or stem in listed:
            mask = f"SegmentationClass/{stem}.png" if f"{stem}.png" in masks else ""
            boxes = find_boxes(name)
            images.append(
                TransferImage(f"JPEGImages/{name}", "", mask, boxes and f"Annotations/{boxes}")
            )
    skipped = content.skipped + _count_unused(
        image_root, ("JPEGImages", "SegmentationClass", "Annotations", "ImageSets")
    )
    skipped[NOT_IN_SPLIT] += len(content.images) - len(images)
    if listed is None:
        skipped[MASK_WITHOUT_IMAGE] += len(masks) - sum(bool(image.mask) for image in images)
    absent = len(listed) - len(images) if listed else 0
    notes = (f"{absent:,} of the {len(listed or ()):,} images of the split have no file",)
    return TransferListing(images, +skipped, notes if absent else ())


def _read_voc_list(root: Path, split: str) -> set[str]:
    """Names of the images of a list, without endings."""
    for folder in VOC_LISTS:
        with suppress(OSError):
            lines = read_file(root / folder / f"{split}.txt").decode("utf-8").splitlines()
            return {line.split()[0] for line in lines if line.strip()}
    raise DataError(
        f"{to_printable(root)}: found no {split}.txt in {' or '.join(VOC_LISTS)}; expected a list "
        "of images, such as val; correct split, or remove it for all images"
    )


def _list_ade20k(params: TransferParams) -> TransferListing:
    root = Path(params.root)
    image_root = _open_with(root, "images", "ADEChallengeData2016")
    found = image_root.list_folders("images")
    wanted = (params.split,) if params.split else ADE20K_SPLITS
    if not set(wanted).intersection(found):
        raise DataError(
            f"{to_printable(root / 'images')}: found the folders {', '.join(found) or 'none'}, "
            f"expected {' or '.join(wanted)}; correct the root or the split"
        )
    images: list[TransferImage] = []
    skipped = _count_unused(image_root, ("images", "annotations"))
    for split in found:
        content = image_root.read_folder(f"images/{split}")
        skipped += content.skipped
        if split not in wanted:
            skipped[NOT_IN_SPLIT] += len(content.images)
            continue
        masks = set(image_root.read_folder(f"annotations/{split}").images)
        images += [
            TransferImage(
                f"images/{split}/{name}",
                mask=f"annotations/{split}/{mask}" if mask in masks else "",
            )
            for name in content.images
            for mask in [_replace_suffix(name, ".png")]
        ]
    return TransferListing(sorted(images), +skipped)


LAYOUTS: dict[str, Callable[[TransferParams], TransferListing]] = {
    "folders": _list_folders,
    "voc": _list_voc,
    "ade20k": _list_ade20k,
}


def _open_with(root: Path, folder: str, usual: str) -> ImageRoot:
    image_root = open_image_root(root)
    if folder not in image_root.list_folders():
        raise DataError(
            f"{to_printable(root)}: found no folder {folder}; expected what is unpacked, whose "
            f"folder is usually {usual}; correct the root or the layout"
        )
    return image_root


def _count_unused(image_root: ImageRoot, used: Iterable[str]) -> Counter[str]:
    skipped = image_root.read_folder().skipped
    for folder in set(image_root.list_folders()).difference(used):
        skipped[UNUSED_FOLDER] += image_root.count_below(folder).total()
    return skipped


def _find_files(folder: Path, suffix: str) -> Callable[[str], str]:
    """A function that gives the file of an image's name in a folder or archive, "" if none."""

    def find(path: str) -> str:
        name = _replace_suffix(path, suffix)
        with suppress(OSError):
            get_file_size(folder / name)
            return name
        return ""

    return find


def _replace_suffix(path: str, suffix: str) -> str:
    return PurePosixPath(path).with_suffix(suffix).as_posix()
