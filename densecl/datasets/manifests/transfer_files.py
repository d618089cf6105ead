"""The masks or boxes in a folder of an entry of `transfer`: found by the names of its images, and
the other files counted by reason; no file is read.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from densecl.datasets.storage.archive_root import ArchiveRoot
from densecl.datasets.storage.filenames import find_litter, get_suffix
from densecl.datasets.storage.folder_root import FolderRoot
from densecl.datasets.storage.image_root import ImageRoot
from densecl.datasets.storage.skipped_files import describe_extension

MASK, BOXES = ".png", ".xml"  # in any case
NO_PNG = "in a folder of masks, no PNG"


class SideFiles(NamedTuple):
    """Paths below the root by the stem of their names, their number, and the other files."""

    paths: dict[str, str]
    total: int
    skipped: Counter[str]

    def find(self, image: str) -> str:
        """The path for an image, "" if there is none."""
        return self.paths.get(_get_stem(image), "")

    def count_unused(self, images: Iterable[str]) -> int:
        """How many belong to none of these images."""
        return self.total - len(self.paths.keys() & {_get_stem(image) for image in images})


NO_FILES = SideFiles({}, 0, Counter())


def list_masks(root: ImageRoot, folder: str = "") -> SideFiles:
    """PNG files directly in a folder."""
    content = root.read_folder(folder)
    masks = [name for name in content.images if get_suffix(name) == MASK]
    others = Counter({NO_PNG: len(content.images) - len(masks)})
    return _collect(folder, masks, MASK, content.skipped + others)


def list_boxes(root: ImageRoot, folder: str = "") -> SideFiles:
    """XML files directly in a folder."""
    subfolders = root.list_folders(folder)  # DataError if it cannot be listed
    names, skipped = list_names(root, folder)
    boxes = [name for name in names if get_suffix(name) == BOXES]
    skipped.update(describe_extension(name) for name in names if get_suffix(name) != BOXES)
    if folder:
        for subfolder in subfolders:
            skipped += root.count_below(f"{folder}/{subfolder}")
    return _collect(folder, boxes, BOXES, skipped)


def list_names(root: ImageRoot, folder: str) -> tuple[list[str], Counter[str]]:
    """Names of the files directly in a folder; hidden and system ones by reason, also below."""
    if isinstance(root, ArchiveRoot):  # of which the root counts the others
        return root.files.get(folder, []), Counter() if folder else Counter(root.skipped)
    names, skipped = list[str](), Counter[str]()
    if isinstance(root, FolderRoot):
        with os.scandir(root.root / folder) as entries:
            for entry in entries:
                if litter := find_litter([entry.name]):
                    is_folder = entry.is_dir(follow_symlinks=False)
                    path = PurePosixPath(folder, entry.name).as_posix()
                    skipped += root.count_below(path) if is_folder else Counter([litter])
                elif entry.is_file():
                    names.append(entry.name)
    return sorted(names), skipped


def _collect(folder: str, names: Sequence[str], suffix: str, skipped: Counter[str]) -> SideFiles:
    """Of two names that differ in the case of the ending, the one in lower case is used."""
    ordered = sorted(names, key=lambda name: (name.endswith(suffix), name))
    paths = {_get_stem(name): f"{folder}/{name}" if folder else name for name in ordered}
    return SideFiles(paths, len(names), +skipped)


def _get_stem(path: str) -> str:
    """Composed, since some systems write accents as characters of their own."""
    return unicodedata.normalize("NFC", PurePosixPath(path).stem)
