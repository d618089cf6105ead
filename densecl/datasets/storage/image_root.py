"""Access to a dataset's images: a folder, or an archive that is read in place.

A path may run through an archive (`imagenet-a.tar/n01498041/x.jpg`), so code that has `root / path`
need not know of archives. Top folders inside one (`imagenet-a/`) may be left out.
"""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from densecl.datasets.storage.archives import Archive, detect_format, open_archive
from densecl.datasets.storage.filenames import check_utf8_names, is_image_name, to_printable
from densecl.errors import DataError


class ImageRoot(Protocol):
    """Names directly inside a folder of the dataset ("" is its root), sorted; hidden ones are
    skipped.
    """

    def list_folders(self, folder: str = "") -> list[str]: ...

    def list_images(self, folder: str = "") -> list[str]: ...

    def has_image(self, folder: str) -> bool: ...


def open_image_root(root: Path) -> ImageRoot:
    """The folder or archive `root`; DataError if it is neither."""
    if root.is_dir():
        return FolderRoot(root)
    for candidate in (root, *root.parents):
        if detect_format(candidate):
            inner_folder = root.relative_to(candidate).as_posix().removeprefix(".")
            return ArchiveRoot(root, open_archive(candidate), inner_folder)
    found = "found a file" if root.exists() else "no such folder or archive"
    raise DataError(
        f"{to_printable(root)}: {found}; expected a folder, or a .tar, .tar.gz or .zip; put the "
        f"dataset there or correct its root"
    )


def list_class_folders(train_root: Path) -> list[str]:
    """[C] sorted folder names of the training dataset; the index of a name is its label."""
    names = open_image_root(train_root).list_folders()
    check_utf8_names(train_root, names)
    return names


def read_file(path: Path) -> bytes:
    """Content of a file, also inside an archive; raises OSError."""
    try:
        return path.read_bytes()
    except NotADirectoryError:
        archive, name = _resolve_member(path)
        return archive.read_member(name)


def get_file_size(path: Path) -> int:
    """Size of a file in bytes, also inside an archive; raises OSError."""
    try:
        return path.stat().st_size
    except NotADirectoryError:
        archive, name = _resolve_member(path)
        return archive.get_size(name)


def _resolve_member(path: Path) -> tuple[Archive, str]:
    """The archive that the path runs through, and the rest of the path."""
    file = next(parent for parent in path.parents if parent.is_file())
    return open_archive(file), path.relative_to(file).as_posix()


class FolderRoot:
    """A folder on disk. A link that leaves it, or loops, is a DataError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list_folders(self, folder: str = "") -> list[str]:
        # A link that loops is no folder, but must be reported.
        entries = self._iter_entries(folder)
        links_and_folders = [entry for entry in entries if entry.is_symlink() or entry.is_dir()]
        for entry in links_and_folders:
            self._check_contained(entry)
        return sorted(entry.name for entry in links_and_folders if entry.is_dir())

    def list_images(self, folder: str = "") -> list[str]:
        names = []
        for entry in self._iter_entries(folder):
            if is_image_name(entry.name):
                self._check_contained(entry)
                if not entry.is_file():
                    raise DataError(
                        f"{to_printable(entry.path)}: found a folder or a device, expected an "
                        f"image; remove it"
                    )
                names.append(entry.name)
        check_utf8_names(self.root / folder, names)
        return sorted(names)

    def has_image(self, folder: str) -> bool:
        return any(is_image_name(entry.name) for entry in self._iter_entries(folder))

    def _iter_entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.root / folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))

    def _check_contained(self, entry: os.DirEntry[str]) -> None:
        if not entry.is_symlink():
            return
        try:
            target = Path(entry.path).resolve(strict=True)
        except (OSError, RuntimeError):
            raise DataError(
                f"{to_printable(entry.path)}: link to nothing or to itself; remove it or repair it"
            ) from None
        inside = target.is_relative_to(self.root.resolve())
        if not inside or Path(entry.path).parent.resolve().is_relative_to(target):
            problem = "loops" if inside else "leaves the dataset"
            raise DataError(
                f"{to_printable(entry.path)}: link that {problem}, to {to_printable(target)}; "
                f"expected the file or folder itself; put it there"
            )


class ArchiveRoot:
    """A folder inside an archive, by default the one that contains the class folders."""

    def __init__(self, root: Path, archive: Archive, inner_folder: str) -> None:
        self.root = root
        start = f"{inner_folder}/" if inner_folder else archive.top_folder
        self.folders: defaultdict[str, set[str]] = defaultdict(set)  # by the folder around them
        self.images: defaultdict[str, list[str]] = defaultdict(list)
        for name in archive.list_names():
            parts = name.removeprefix(start).split("/")
            if name.startswith(start) and not any(part.startswith(".") for part in parts):
                for depth, part in enumerate(parts[:-1]):
                    self.folders["/".join(parts[:depth])].add(part)
                if is_image_name(parts[-1]):
                    self.images["/".join(parts[:-1])].append(parts[-1])
        if inner_folder and not self.folders and not self.images:
            raise DataError(
                f"{to_printable(root)}: no such folder in the archive; correct the root"
            )

    def list_folders(self, folder: str = "") -> list[str]:
        return sorted(self.folders[folder])

    def list_images(self, folder: str = "") -> list[str]:
        check_utf8_names(self.root / folder, self.images[folder])
        return self.images[folder]

    def has_image(self, folder: str) -> bool:
        return bool(self.images[folder])
