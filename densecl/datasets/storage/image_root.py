"""Where the bytes of a set's images are: a folder, or an archive that is read as if it were one.

A path may run through an archive (`imagenet-a.tar/n01498041/x.jpg`), so whoever holds `root / path`
needs to know nothing of archives. Top folders inside one (`imagenet-a/`) may be left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from densecl.datasets.storage.archives import Archive, is_archive, open_archive
from densecl.datasets.storage.filenames import check_utf8_names, is_image_name, to_printable
from densecl.errors import DataError


class ImageRoot(Protocol):
    """Names directly inside a folder of the set ("" is its root), sorted; those that start with a
    dot are left out.
    """

    def list_folders(self, folder: str = "") -> list[str]: ...

    def list_images(self, folder: str = "") -> list[str]: ...

    def has_image(self, folder: str) -> bool: ...


def open_image_root(root: Path) -> ImageRoot:
    """The folder or archive `root`; DataError where it is neither."""
    if root.is_dir():
        return FolderRoot(root)
    archive = _find_archive(root)
    if archive is None:
        found = "found a file" if root.exists() else "no such folder or archive"
        raise DataError(
            f"{to_printable(root)}: {found}; expected a folder, or a .tar, .tar.gz or .zip; put "
            f"the set "
            f"there or correct its root"
        )
    return ArchiveRoot(root, *archive)


def list_class_folders(train_root: Path) -> list[str]:
    """[C] sorted folder names of the train set: the place of a name is its label."""
    names = open_image_root(train_root).list_folders()
    check_utf8_names(train_root, names)
    return names


def read_file(path: Path) -> bytes:
    """Content of a file, also inside an archive; OSError."""
    try:
        return path.read_bytes()
    except NotADirectoryError:
        archive, name = _resolve_member(path)
        return archive.read_member(name)


def get_file_size(path: Path) -> int:
    """Bytes of a file, also inside an archive; OSError."""
    try:
        return path.stat().st_size
    except NotADirectoryError:
        archive, name = _resolve_member(path)
        return archive.get_size(name)


class FolderRoot:
    """A folder on disk. A link must stay inside it: one that leaves or loops is a DataError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list_folders(self, folder: str = "") -> list[str]:
        # A link that loops is no folder: it must not be passed over.
        entries = [
            self._check_contained(entry)
            for entry in self._iter_entries(folder)
            if entry.is_symlink() or entry.is_dir()
        ]
        return sorted(entry.name for entry in entries if entry.is_dir())

    def list_images(self, folder: str = "") -> list[str]:
        names = []
        for entry in self._iter_entries(folder):
            if is_image_name(entry.name):
                if not self._check_contained(entry).is_file():
                    raise DataError(
                        f"{to_printable(entry.path)}: found a folder or a device, expected an "
                        f"image; "
                        f"remove it"
                    )
                names.append(entry.name)
        check_utf8_names(self.root / folder, names)
        return sorted(names)

    def has_image(self, folder: str) -> bool:
        return any(is_image_name(entry.name) for entry in self._iter_entries(folder))

    def _iter_entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.root / folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith("."))

    def _check_contained(self, entry: os.DirEntry[str]) -> os.DirEntry[str]:
        if entry.is_symlink():
            try:
                target = Path(entry.path).resolve(strict=True)
            except (OSError, RuntimeError):
                raise DataError(
                    f"{to_printable(entry.path)}: link to nothing or to itself; remove it or "
                    f"repair it"
                ) from None
            inside = target.is_relative_to(self.root.resolve())
            if not inside or Path(entry.path).parent.resolve().is_relative_to(target):
                raise DataError(
                    f"{to_printable(entry.path)}: link that "
                    f"{'loops' if inside else 'leaves the set'}, "
                    f"to {to_printable(target)}; "
                    "expected the file or folder itself; put it there"
                )
        return entry


class ArchiveRoot:
    """A folder inside an archive, by default the one that holds the class folders."""

    def __init__(self, root: Path, archive: Archive, inner_folder: str) -> None:
        self.root = root
        start = inner_folder + "/" if inner_folder else archive.top_folder
        self.content: dict[str, tuple[list[str], list[str]]] = {
            "": ([], [])
        }  # folder -> its folders, its images
        for name in archive.list_names():
            if name.startswith(start) and not any(part.startswith(".") for part in name.split("/")):
                self._add_name(name[len(start) :])
        for folders, _ in self.content.values():
            folders.sort()  # the archive's order is of whole names, in which "-" comes before "/"
        if inner_folder and self.content == {"": ([], [])}:
            raise DataError(
                f"{to_printable(root)}: no such folder in the archive; correct the root"
            )

    def list_folders(self, folder: str = "") -> list[str]:
        return self.content[folder][0]

    def list_images(self, folder: str = "") -> list[str]:
        check_utf8_names(self.root / folder, self.content[folder][1])
        return self.content[folder][1]

    def has_image(self, folder: str) -> bool:
        return bool(self.content[folder][1])

    def _add_name(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        if folder not in self.content:
            parent, _, folder_name = folder.rpartition("/")
            if parent not in self.content:
                self._add_name(parent + "/")
            self.content[parent][0].append(folder_name)
            self.content[folder] = ([], [])
        if is_image_name(file):
            self.content[folder][1].append(file)


def _find_archive(path: Path) -> tuple[Archive, str] | None:
    """The archive that the path is or runs through, with the rest of the path."""
    for candidate in (path, *path.parents):
        if is_archive(candidate):
            return open_archive(candidate), path.relative_to(candidate).as_posix().removeprefix(".")
        if candidate.exists():
            break
    return None


def _resolve_member(path: Path) -> tuple[Archive, str]:
    for candidate in path.parents:
        if candidate.is_file():
            return open_archive(candidate), path.relative_to(candidate).as_posix()
    raise FileNotFoundError(2, "No such file or directory", str(path))
