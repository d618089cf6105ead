"""Where the bytes of a set's images are: a folder, or an archive that is read as if it were one.

A path may run through an archive (`imagenet-a.tar/n01498041/x.jpg`), so whoever holds `root / path`
needs to know nothing of archives. Top folders inside one (`imagenet-a/`) may be left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from densecl.datasets.storage.archives import Archive, is_archive, opened
from densecl.datasets.storage.filenames import is_image, require_text, shown
from densecl.errors import DataError


class Tree(Protocol):
    """Names directly inside a folder of the set ("" is its root), sorted; those that start with a
    dot are left out.
    """

    def folders(self, folder: str = "") -> list[str]: ...

    def images(self, folder: str = "") -> list[str]: ...

    def has_image(self, folder: str) -> bool: ...


def tree(root: Path) -> Tree:
    """The folder or archive `root`; DataError where it is neither."""
    if root.is_dir():
        return Folder(root)
    place = _archive_of(root)
    if place is None:
        found = "found a file" if root.exists() else "no such folder or archive"
        raise DataError(
            f"{shown(root)}: {found}; expected a folder, or a .tar, .tar.gz or .zip; put the set "
            f"there or correct its root"
        )
    return Packed(root, *place)


def list_classes(train_root: Path) -> list[str]:
    """[C] sorted folder names of the train set: the place of a name is its label."""
    names = tree(train_root).folders()
    require_text(train_root, names)
    return names


def read(path: Path) -> bytes:
    """Content of a file, also inside an archive; OSError."""
    try:
        return path.read_bytes()
    except NotADirectoryError:
        archive, name = _member(path)
        return archive.read(name)


def size(path: Path) -> int:
    """Bytes of a file, also inside an archive; OSError."""
    try:
        return path.stat().st_size
    except NotADirectoryError:
        archive, name = _member(path)
        return archive.size(name)


class Folder:
    """A folder on disk. A link must stay inside it: one that leaves or loops is a DataError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folders(self, folder: str = "") -> list[str]:
        # A link that loops is no folder: it must not be passed over.
        found = [
            self._contained(entry)
            for entry in self._entries(folder)
            if entry.is_symlink() or entry.is_dir()
        ]
        return sorted(entry.name for entry in found if entry.is_dir())

    def images(self, folder: str = "") -> list[str]:
        names = []
        for entry in self._entries(folder):
            if is_image(entry.name):
                if not self._contained(entry).is_file():
                    raise DataError(
                        f"{shown(entry.path)}: found a folder or a device, expected an image; "
                        f"remove it"
                    )
                names.append(entry.name)
        require_text(self.root / folder, names)
        return sorted(names)

    def has_image(self, folder: str) -> bool:
        return any(is_image(entry.name) for entry in self._entries(folder))

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.root / folder) as found:
            yield from (entry for entry in found if not entry.name.startswith("."))

    def _contained(self, entry: os.DirEntry[str]) -> os.DirEntry[str]:
        if entry.is_symlink():
            try:
                target = Path(entry.path).resolve(strict=True)
            except (OSError, RuntimeError):
                raise DataError(
                    f"{shown(entry.path)}: link to nothing or to itself; remove it or repair it"
                ) from None
            inside = target.is_relative_to(self.root.resolve())
            if not inside or Path(entry.path).parent.resolve().is_relative_to(target):
                raise DataError(
                    f"{shown(entry.path)}: link that {'loops' if inside else 'leaves the set'}, "
                    f"to {shown(target)}; "
                    "expected the file or folder itself; put it there"
                )
        return entry


class Packed:
    """A folder inside an archive, by default the one that holds the class folders."""

    def __init__(self, root: Path, archive: Archive, inside: str) -> None:
        self.root = root
        start = inside + "/" if inside else archive.top
        self.content: dict[str, tuple[list[str], list[str]]] = {
            "": ([], [])
        }  # folder -> its folders, its images
        for name in archive.listing():
            if name.startswith(start) and not any(part.startswith(".") for part in name.split("/")):
                self._add(name[len(start) :])
        for folders, _ in self.content.values():
            folders.sort()  # the archive's order is of whole names, in which "-" comes before "/"
        if inside and self.content == {"": ([], [])}:
            raise DataError(f"{shown(root)}: no such folder in the archive; correct the root")

    def folders(self, folder: str = "") -> list[str]:
        return self.content[folder][0]

    def images(self, folder: str = "") -> list[str]:
        require_text(self.root / folder, self.content[folder][1])
        return self.content[folder][1]

    def has_image(self, folder: str) -> bool:
        return bool(self.content[folder][1])

    def _add(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        if folder not in self.content:
            parent, _, own = folder.rpartition("/")
            if parent not in self.content:
                self._add(parent + "/")
            self.content[parent][0].append(own)
            self.content[folder] = ([], [])
        if is_image(file):
            self.content[folder][1].append(file)


def _archive_of(path: Path) -> tuple[Archive, str] | None:
    """The archive that the path is or runs through, with the rest of the path."""
    for place in (path, *path.parents):
        if is_archive(place):
            return opened(place), path.relative_to(place).as_posix().removeprefix(".")
        if place.exists():
            break
    return None


def _member(path: Path) -> tuple[Archive, str]:
    for place in path.parents:
        if place.is_file():
            return opened(place), path.relative_to(place).as_posix()
    raise FileNotFoundError(2, "No such file or directory", str(path))
