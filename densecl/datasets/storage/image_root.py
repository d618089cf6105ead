"""Access to a dataset's images: a folder, or an archive that is read in place.

A path may run through an archive (`imagenet-a.tar/n01498041/x.jpg`), so code that has `root / path`
need not know of archives. Top folders inside one (`imagenet-a/`) may be left out.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple, Protocol

from densecl.datasets.storage.archive_root import ArchiveRoot
from densecl.datasets.storage.archives import Archive, detect_format, open_archive, read_plain
from densecl.datasets.storage.filenames import check_utf8_names, to_printable
from densecl.datasets.storage.folder_root import FolderContent, FolderRoot, FollowLinks
from densecl.datasets.storage.open_files import FileIdentity
from densecl.datasets.storage.shard_cache import find_shard, stage_missing
from densecl.errors import DataError


class ImageRoot(Protocol):
    """Folders of the dataset ("" is its root). Hidden and system files and folders are not used."""

    def list_folders(self, folder: str = "") -> list[str]: ...

    def read_folder(self, folder: str = "") -> FolderContent: ...

    def count_below(self, folder: str) -> Counter[str]: ...

    def has_image(self, folder: str) -> bool: ...


def open_image_root(
    root: Path, *, recursive: bool = False, follow_links: FollowLinks = "anywhere"
) -> ImageRoot:
    """The folder or archive `root`; DataError if it is neither.

    `recursive`: images in subfolders of a class folder belong to its class.
    """
    if root.is_dir():
        return FolderRoot(root, recursive, follow_links)
    for candidate in (root, *root.parents):
        if detect_format(candidate):
            inner_folder = root.relative_to(candidate).as_posix().removeprefix(".")
            return ArchiveRoot(root, open_archive(candidate), inner_folder, recursive)
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


class StoredImage(NamedTuple):
    """An image inside an archive, where its bytes lie."""

    archive: Path
    plain: FileIdentity  # what is read: the archive, or what it was unpacked to
    offset: int
    size: int

    def __str__(self) -> str:
        """Its path through the archive, for messages."""
        return str(self.archive / (open_archive(self.archive).find_name(self.offset) or "?"))


ImagePlace = Path | StoredImage


def read_file(place: ImagePlace) -> bytes:
    """Content of a file, also inside an archive; raises OSError."""
    if isinstance(place, StoredImage):
        content = read_plain(place.plain, place.size, place.offset)
        if len(content) != place.size:
            raise OSError(5, "damaged inside its archive", str(place))
        return content
    try:
        return place.read_bytes()
    except NotADirectoryError:
        pass
    except FileNotFoundError:
        if not stage_missing(place):
            raise
        if place.exists():
            return place.read_bytes()
    archive, name = _resolve_member(place)
    return archive.read_member(name)


def get_file_size(path: Path) -> int:
    """Size of a file in bytes, also inside an archive; raises OSError."""
    if (shard := find_shard(path)) and shard != path:
        return open_archive(shard).get_size(path.relative_to(shard).as_posix())
    try:
        return path.stat().st_size
    except NotADirectoryError:
        archive, name = _resolve_member(path)
        return archive.get_size(name)


def find_archive(path: Path) -> Path | None:
    """The archive that a path is or runs through; None for a path of folders."""
    return find_shard(path) or next((p for p in (path, *path.parents) if p.is_file()), None)


def _resolve_member(path: Path) -> tuple[Archive, str]:
    """The archive that the path runs through, and the rest of the path."""
    file = find_archive(path)
    if file is None:
        raise FileNotFoundError(2, "no such file", str(path))
    return open_archive(file), path.relative_to(file).as_posix()
