"""Lists of images as VOC has them in ImageSets: one a line, of a class with 1, 0 or -1."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.image_root import read_file
from densecl.errors import DataError

VOC_LISTS = ("ImageSets/Segmentation", "ImageSets/Main")
ABSENT = "-1"  # of a class: the image does not show it; 0 is difficult


class VocList(NamedTuple):
    """The file of a list and its names, with or without endings."""

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
    return image, PurePosixPath(image).stem


def read_voc_list(root: Path, split: str) -> VocList:
    """The images of a list; of a class, those that show it."""
    for folder in VOC_LISTS:
        path = root / folder / f"{split}.txt"
        with suppress(OSError):
            return VocList(path, _parse_list(path, read_file(path)))
    raise DataError(
        f"{to_printable(root)}: found no {split}.txt in {' or '.join(VOC_LISTS)}; expected a list "
        "of images, such as val; correct split, or remove it for all images"
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
    rows = [line.split() for line in text.splitlines() if line.strip()]
    names = frozenset(row[0] for row in rows if row[1:2] != [ABSENT])
    if not names:
        raise DataError(
            f"{to_printable(path)}: found no image in {len(rows):,} lines, expected one a line, of "
            f"a class not only with {ABSENT}; correct the list or the split"
        )
    return names
