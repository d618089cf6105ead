"""Access to a dataset's images: a folder, or an archive that is read in place.

A path may run through an archive (`imagenet-a.tar/n01498041/x.jpg`), so code that has `root / path`
need not know of archives. Top folders inside one (`imagenet-a/`) may be left out.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from densecl.datasets.storage.archives import Archive, detect_format, open_archive
from densecl.datasets.storage.filenames import check_utf8_names, is_image_name, to_printable
from densecl.datasets.storage.skipped_files import (
    HIDDEN,
    IN_SUBFOLDERS,
    NOT_IN_CLASS_FOLDER,
    REPLACED,
    describe_extension,
)
from densecl.errors import DataError


class FolderContent(NamedTuple):
    """Sorted names of the images directly inside a folder, and its other files by reason: all of
    them, also those of its subfolders.

    The subfolders of the root are class folders: of the root, only hidden ones count.
    """

    images: list[str]
    skipped: Counter[str]


class ImageRoot(Protocol):
    """Folders of the dataset ("" is its root). Hidden files and folders are not used."""

    def list_folders(self, folder: str = "") -> list[str]: ...

    def read_folder(self, folder: str = "") -> FolderContent: ...

    def count_below(self, folder: str) -> Counter[str]: ...

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


def _raise_unreadable(error: OSError) -> None:
    """`os.walk` leaves out what it cannot read."""
    path = to_printable(error.filename)
    reason = (error.strerror or "unreadable").lower()
    raise DataError(f"{path}: {reason}; expected a folder that can be listed; correct its rights")


class FolderRoot:
    """A folder on disk. A link that leaves it, or loops, is a DataError."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def list_folders(self, folder: str = "") -> list[str]:
        # A link that loops is no folder, but must be reported.
        entries = (entry for entry in self._iter_entries(folder) if not entry.name.startswith("."))
        links_and_folders = [entry for entry in entries if entry.is_symlink() or entry.is_dir()]
        for entry in links_and_folders:
            self._check_contained(entry)
        return sorted(entry.name for entry in links_and_folders if entry.is_dir())

    def read_folder(self, folder: str = "") -> FolderContent:
        names, skipped = [], Counter[str]()
        for entry in self._iter_entries(folder):
            is_hidden = entry.name.startswith(".")
            # Folders of the root are class folders, whatever their names.
            if is_image_name(entry.name) and (folder or not entry.is_dir()):
                self._check_contained(entry)
                if not entry.is_file():
                    raise DataError(
                        f"{to_printable(entry.path)}: found a folder or a device, expected an "
                        f"image; remove it"
                    )
                names.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                skipped += self._count_in(entry.path) if folder or is_hidden else Counter()
            elif is_hidden:
                skipped[HIDDEN] += 1
            elif Path(entry.path).is_dir():  # behind a link, and not entered: it counts as one
                skipped[IN_SUBFOLDERS] += bool(folder)
            else:
                skipped[describe_extension(entry.name)] += 1
        check_utf8_names(self.root / folder, names)
        return FolderContent(sorted(names), skipped)

    def count_below(self, folder: str) -> Counter[str]:
        """Files below a folder that is not read, by reason; a link to a folder counts as one."""
        return self._count_in(os.fspath(self.root / folder))

    def has_image(self, folder: str) -> bool:
        return any(is_image_name(entry.name) for entry in self._iter_entries(folder))

    def _count_in(self, path: str) -> Counter[str]:
        counts = Counter[str]()
        for parent, folders, files in os.walk(path, onerror=_raise_unreadable):
            parts = Path(parent).relative_to(self.root).parts
            links = (name for name in folders if Path(parent, name).is_symlink())
            for name in (*files, *links):
                is_hidden = any(part.startswith(".") for part in (*parts, name))
                counts[HIDDEN if is_hidden else IN_SUBFOLDERS] += 1
        return counts

    def _iter_entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self.root / folder) as entries:
            yield from entries

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
        self.skipped: defaultdict[str, Counter[str]] = defaultdict(Counter)
        if not inner_folder and archive.replaced:
            self.skipped[""][REPLACED] = archive.replaced
        for name in archive.list_names():
            if name.startswith(start):
                self._add_member(name.removeprefix(start).split("/"))
            elif not inner_folder and not name.endswith("/"):  # beside the folder of the classes
                is_hidden = any(part.startswith(".") for part in name.split("/"))
                self.skipped[""][HIDDEN if is_hidden else NOT_IN_CLASS_FOLDER] += 1
        if inner_folder and not self.folders and not self.images:
            raise DataError(
                f"{to_printable(root)}: no such folder in the archive; correct the root"
            )

    def _add_member(self, parts: list[str]) -> None:
        """A file by the parts of its name; of a folder, the last part is empty."""
        *folders, name = parts
        if any(part.startswith(".") for part in parts):
            self.skipped[""][HIDDEN] += bool(name)
            return
        for depth, folder in enumerate(folders if folders != [""] else []):  # "./", the root itself
            self.folders["/".join(folders[:depth])].add(folder)
        if is_image_name(name):
            self.images["/".join(folders)].append(name)
        elif name:
            self.skipped["/".join(folders)][describe_extension(name)] += 1

    def list_folders(self, folder: str = "") -> list[str]:
        return sorted(self.folders.get(folder, ()))

    def read_folder(self, folder: str = "") -> FolderContent:
        images = self.images.get(folder, [])
        check_utf8_names(self.root / folder, images)
        skipped = Counter(self.skipped.get(folder, ()))
        for subfolder in self.folders.get(folder, ()) if folder else ():
            skipped += self.count_below(f"{folder}/{subfolder}")
        return FolderContent(images, skipped)

    def count_below(self, folder: str) -> Counter[str]:
        """Files below a folder that is not read, by reason."""
        files = len(self.images.get(folder, ())) + sum(self.skipped.get(folder, {}).values())
        counts = Counter({IN_SUBFOLDERS: files})
        for subfolder in self.folders.get(folder, ()):
            counts += self.count_below(f"{folder}/{subfolder}")
        return counts

    def has_image(self, folder: str) -> bool:
        return bool(self.images.get(folder))
