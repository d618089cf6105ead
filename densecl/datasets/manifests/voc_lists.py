"""Lists of images as VOC has them in ImageSets: one a line, of a class with 1, 0 or -1."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from densecl.datasets.storage.filenames import is_image_name, to_printable
from densecl.datasets.storage.image_root import read_file
from densecl.errors import DataError

VOC_LISTS = ("ImageSets/Segmentation", "ImageSets/Main")
ABSENT = "-1"  # of a class: the image does not show it; 0 is difficult
COLUMN = (ABSENT, "0", "1")


class VocList(NamedTuple):
    """The file of a list and its names, with endings in lower case or without."""

    path: Path
    names: frozenset[str]

    def select(self, images: Sequence[str]) -> list[str]:
        """Those of the images that are listed; DataError if none is."""
        selected = [name for name in images if self.names.intersection(_get_names(name))]
        if images and not selected:
            raise DataError(
                f"{to_printable(self.path)}: found no file of its {len(self.names):,} images, "
                f"{to_printable(min(self.names))} the first; expected names of files in "
                f"JPEGImages, such as {to_printable(PurePosixPath(images[0]).stem)}; correct the "
                "list or the split"
            )
        return selected

    def count_absent(self, images: Sequence[str]) -> int:
        """Listed images that have no file."""
        return len(self.names.difference(*map(_get_names, images)))


def _get_names(image: str) -> tuple[str, str]:
    """What a list may call it."""
    return _lower_ending(image), PurePosixPath(image).stem


def _lower_ending(name: str) -> str:
    """An image's; what follows the last dot of another name is part of the name."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) + suffix.lower() if is_image_name(name) else name


def read_voc_list(root: Path, split: str) -> VocList:
    """The images of a list; of a class, those that show it."""
    for folder in ("ImageSets", *VOC_LISTS):  # the first: of a split such as Main/train
        path = root / folder / f"{split}.txt"
        with suppress(OSError):
            return VocList(path, _parse_list(path, read_file(path)))
    raise DataError(
        f"{to_printable(root)}: found no {split}.txt in {' or '.join(VOC_LISTS)}; expected a list "
        "of images, such as val or Main/val; correct split, or remove it for all images"
    )


def _parse_list(path: Path, content: bytes) -> frozenset[str]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # of UTF-16 without its mark
        raise DataError(
            f"{to_printable(path)}: found text that is not UTF-8, expected a list of images in "
            "UTF-8, one a line; save it in this encoding"
        )
    rows = [_parse_line(line) for line in text.splitlines() if line.strip()]
    names = frozenset(name for name, column in rows if column != ABSENT)
    if not names:
        raise DataError(
            f"{to_printable(path)}: found no image in {len(rows):,} lines, expected one a line, of "
            f"a class not only with {ABSENT}; correct the list or the split"
        )
    return names


def _parse_line(line: str) -> tuple[str, str]:
    """Name, which may have spaces, and the class's column, "" if there is none."""
    name, *column = line.strip().rsplit(maxsplit=1)
    if column and column[0] in COLUMN:
        return _lower_ending(name), column[0]
    return _lower_ending(line.strip()), ""
