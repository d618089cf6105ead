"""A dataset's folder inside an archive: its images, and its other files by reason."""

import io
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path

from densecl.datasets.storage.archives import Archive
from densecl.datasets.storage.filenames import (
    check_utf8_names,
    find_litter,
    is_image_name,
    to_printable,
)
from densecl.datasets.storage.folder_root import FolderContent
from densecl.datasets.storage.image_formats import is_image_content
from densecl.datasets.storage.skipped_files import (
    IN_SUBFOLDERS,
    NOT_IN_CLASS_FOLDER,
    REPLACED,
    describe_extension,
)
from densecl.errors import DataError


class ArchiveRoot:
    """A folder inside an archive, by default the one that contains the class folders."""

    def __init__(self, root: Path, archive: Archive, inner_folder: str, recursive: bool) -> None:
        self.root, self.archive, self.recursive = root, archive, recursive
        self.start = f"{inner_folder}/" if inner_folder else archive.top_folder
        self.folders: defaultdict[str, set[str]] = defaultdict(set)  # by the folder around them
        self.files: defaultdict[str, list[str]] = defaultdict(list)  # neither hidden nor system
        self.skipped = Counter[str]()  # hidden, or not below the root
        if not inner_folder and archive.replaced:
            self.skipped[REPLACED] = archive.replaced
        for name in archive.list_names():
            if name.startswith(self.start):
                self._add_member(name.removeprefix(self.start).split("/"))
            elif not inner_folder and not name.endswith("/"):  # beside the folder of the classes
                self.skipped[find_litter(name.split("/")) or NOT_IN_CLASS_FOLDER] += 1
        if inner_folder and not self.folders and not self.files:
            raise DataError(
                f"{to_printable(root)}: no such folder in the archive; correct the root"
            )

    def _add_member(self, parts: list[str]) -> None:
        """A file by the parts of its name; of a folder, the last part is empty."""
        *folders, name = parts
        if litter := find_litter(parts):
            self.skipped[litter] += bool(name)
            return
        for depth, folder in enumerate(folders if folders != [""] else []):  # "./", the root itself
            self.folders["/".join(folders[:depth])].add(folder)
        if name:
            self.files["/".join(folders)].append(name)

    def list_folders(self, folder: str = "") -> list[str]:
        return sorted(self.folders.get(folder, ()))

    def read_folder(self, folder: str = "") -> FolderContent:
        images, skipped = list[str](), Counter() if folder else Counter(self.skipped)
        for name in self.files.get(folder, ()):
            if self._is_image(folder, name):
                images.append(name)
            else:
                skipped[describe_extension(name)] += 1
        for subfolder in self.folders.get(folder, ()) if folder else ():
            path = f"{folder}/{subfolder}"
            if self.recursive:
                content = self.read_folder(path)
                images += [f"{subfolder}/{name}" for name in content.images]
                skipped += content.skipped
            else:
                skipped += self.count_below(path)
        check_utf8_names(self.root / folder, images)
        return FolderContent(sorted(images), skipped)

    def count_below(self, folder: str) -> Counter[str]:
        """Files below a folder that is not read, by reason."""
        counts = Counter({IN_SUBFOLDERS: len(self.files.get(folder, ()))})
        for subfolder in self.folders.get(folder, ()):
            counts += self.count_below(f"{folder}/{subfolder}")
        return counts

    def has_image(self, folder: str) -> bool:
        if any(map(is_image_name, self.files.get(folder, ()))):
            return True
        return bool(self.read_folder(folder).images)

    def _is_image(self, folder: str, name: str) -> bool:
        if is_image_name(name):
            return True
        path = f"{self.start}{folder}/{name}" if folder else f"{self.start}{name}"
        with suppress(OSError):
            return is_image_content(io.BytesIO(self.archive.read_member(path)), name)
        return False
