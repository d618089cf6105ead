"""A dataset's folder on disk: its images, its links, and its other files by reason."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from densecl.datasets.storage.filenames import (
    check_utf8_names,
    find_litter,
    is_image_name,
    to_printable,
)
from densecl.datasets.storage.image_formats import is_image_content
from densecl.datasets.storage.skipped_files import IN_SUBFOLDERS, describe_extension
from densecl.errors import DataError

FollowLinks = Literal["anywhere", "inside"]


class FolderContent(NamedTuple):
    """Sorted names of the images of a folder, of a recursive root also those of its subfolders; and
    its other files by reason: all of them, also those of its subfolders.

    The subfolders of the root are class folders: of the root, only hidden and system ones count.
    """

    images: list[str]
    skipped: Counter[str]


class FolderRoot:
    """A folder on disk. Links are followed; DataError for one that loops, leads to nothing or, if
    only those inside are followed, leaves the folder.
    """

    def __init__(self, root: Path, recursive: bool, follow_links: FollowLinks) -> None:
        self.root, self.recursive, self.follow_links = root, recursive, follow_links
        self.resolved_root = root.resolve()

    def list_folders(self, folder: str = "") -> list[str]:
        # A link that loops is no folder, but must be reported.
        entries = (entry for entry in self._iter_entries(folder) if not find_litter([entry.name]))
        links_and_folders = [entry for entry in entries if entry.is_symlink() or entry.is_dir()]
        for entry in links_and_folders:
            self._check_entry(entry)
        return sorted(entry.name for entry in links_and_folders if entry.is_dir())

    def read_folder(self, folder: str = "") -> FolderContent:
        names, skipped = list[str](), Counter[str]()
        for entry in self._iter_entries(folder):
            if litter := find_litter([entry.name]):
                skipped += self._count_litter(entry, litter)
                continue
            self._check_entry(entry)
            if entry.is_dir():
                content = self._read_subfolder(entry, folder)
                names += [f"{entry.name}/{name}" for name in content.images]
                skipped += content.skipped
            elif self._is_image(entry):
                names.append(entry.name)
            else:
                skipped[describe_extension(entry.name)] += 1
        check_utf8_names(self.root / folder, names)
        return FolderContent(sorted(names), skipped)

    def list_files(self, folder: str = "") -> tuple[list[str], Counter[str]]:
        """Sorted paths of all files below, images or not; hidden and system ones by reason."""
        paths, skipped = list[str](), Counter[str]()
        for entry in self._iter_entries(folder):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if litter := find_litter([entry.name]):
                skipped += self._count_litter(entry, litter)
                continue
            self._check_entry(entry)
            if entry.is_dir():
                paths_below, skipped_below = self.list_files(path)
                paths += paths_below
                skipped += skipped_below
            else:
                paths.append(path)
        return sorted(paths), skipped

    def _count_litter(self, entry: os.DirEntry[str], litter: str) -> Counter[str]:
        is_folder = entry.is_dir(follow_symlinks=False)
        return self._count_in(entry.path) if is_folder else Counter([litter])

    def count_below(self, folder: str) -> Counter[str]:
        """Files below a folder that is not read, by reason; a link to a folder counts as one."""
        return self._count_in(os.fspath(self.root / folder))

    def has_image(self, folder: str) -> bool:
        if any(is_image_name(entry.name) for entry in self._iter_entries(folder)):
            return True
        return bool(self.read_folder(folder).images)

    def _read_subfolder(self, entry: os.DirEntry[str], folder: str) -> FolderContent:
        """Of the root, subfolders are class folders and read on their own."""
        if not folder:
            return FolderContent([], Counter())
        if self.recursive:
            return self.read_folder(f"{folder}/{entry.name}")
        if is_image_name(entry.name):
            place = to_printable(entry.path)
            raise DataError(f"{place}: found a folder or a device, expected an image; remove it")
        if entry.is_symlink():  # not entered: it counts as one
            return FolderContent([], Counter([IN_SUBFOLDERS]))
        return FolderContent([], self._count_in(entry.path))

    def _is_image(self, entry: os.DirEntry[str]) -> bool:
        if is_image_name(entry.name):
            return True
        with suppress(OSError), Path(entry.path).open("rb") as file:
            return is_image_content(file, entry.name)
        return False

    def _count_in(self, path: str) -> Counter[str]:
        counts = Counter[str]()

        def handle_unreadable(error: OSError) -> None:
            """`os.walk` leaves out what it cannot read, such as lost+found of a disk."""
            reason = find_litter(Path(error.filename).relative_to(self.root).parts)
            if not reason:
                _raise_unreadable(error)
            counts[reason] += 1

        for parent, folders, files in os.walk(path, onerror=handle_unreadable):
            parts = Path(parent).relative_to(self.root).parts
            links = (name for name in folders if Path(parent, name).is_symlink())
            for name in (*files, *links):
                counts[find_litter((*parts, name)) or IN_SUBFOLDERS] += 1
        return counts

    def _iter_entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self.root / folder) as entries:
                yield from entries
        except PermissionError as error:
            _raise_unreadable(error)

    def _check_entry(self, entry: os.DirEntry[str]) -> None:
        """DataError unless the entry is a folder, a file or a link that may be followed to one."""
        is_link, place = entry.is_symlink(), to_printable(entry.path)
        try:
            is_file, is_folder = entry.is_file(), entry.is_dir()
        except OSError:  # too many links
            is_file = is_folder = False
        if not (is_file or is_folder):
            if is_link and not Path(entry.path).exists():
                raise DataError(f"{place}: link to nothing or to itself; remove it or repair it")
            raise DataError(f"{place}: found a folder or a device, expected an image; remove it")
        if is_link and (is_folder or self.follow_links == "inside"):
            self._check_target(entry)

    def _check_target(self, entry: os.DirEntry[str]) -> None:
        target, place = Path(entry.path).resolve(), to_printable(entry.path)
        around = Path(entry.path).relative_to(self.root).parents
        if any((self.root / folder).resolve().is_relative_to(target) for folder in around):
            raise DataError(
                f"{place}: link that loops, to {to_printable(target)}; expected the file or folder "
                "itself; put it there"
            )
        if self.follow_links == "inside" and not target.is_relative_to(self.resolved_root):
            raise DataError(
                f"{place}: link that leaves {to_printable(self.root)}, to {to_printable(target)}; "
                "expected the file or folder itself; put it there, or, for images that you trust, "
                "set follow_links: anywhere for the dataset in params.yaml, or give the command "
                "--follow-links"
            )


def _raise_unreadable(error: OSError) -> None:
    path, reason = to_printable(error.filename), (error.strerror or "unreadable").lower()
    raise DataError(f"{path}: {reason}; expected a folder that can be listed; correct its rights")
