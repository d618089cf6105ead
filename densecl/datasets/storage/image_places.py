"""Where the images of a dataset lie: paths of files, or offsets in archives that are read by them.

At 1.28 M images of shards, offsets take 13 MB where paths would take 60. They are those of the
archive's index, not of the manifest: shards that are packed anew from the same images retrain
nothing.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from densecl.datasets.storage.archives import Archive, load_archive, locate_index
from densecl.datasets.storage.image_names import (
    ROWS_AT_ONCE,
    ImageFiles,
    list_folders,
    to_arrow_strings,
)
from densecl.datasets.storage.image_root import ImagePlace, StoredImage, find_archive
from densecl.datasets.storage.open_files import FileIdentity
from densecl.datasets.storage.shard_cache import fetch_ahead, find_staged

BLOCK = 512  # bytes: offsets in tars are multiples of it


def locate_images(root: Path, paths: pd.Series) -> Sequence[ImagePlace]:
    """The image of each path below the root. DataError for one that its archive does not have."""
    folders = list_folders(paths).dictionary_encode().combine_chunks()
    names = folders.dictionary.to_pylist()
    if not names or find_archive(root / names[0]) is None:
        return ImageFiles(root, paths)
    archives, codes = _number_archives(root, folders)
    if None in archives:
        return ImageFiles(root, paths)
    images = ArchiveImages([archive for archive in archives if archive is not None], codes)
    images.fill(root, paths)
    return images if images.are_plain else ImageFiles(root, paths)


def number_archives(root: Path, paths: pd.Series) -> NDArray[np.int64]:
    """[B]: which archive each path runs through, counted in the order of the paths; those of plain
    files have a number too.
    """
    return _number_archives(root, list_folders(paths).dictionary_encode().combine_chunks())[1]


def _number_archives(
    root: Path, folders: pa.DictionaryArray
) -> tuple[list[Path | None], NDArray[np.int64]]:
    """The archives of the folders in their order, None for plain ones, and the number of each."""
    found = [find_archive(root / name) for name in folders.dictionary.to_pylist()]
    archives = list(dict.fromkeys(found))
    number = {archive: code for code, archive in enumerate(archives)}
    codes = np.array([number[archive] for archive in found], np.int64)
    return archives, codes[folders.indices.to_numpy()]


def list_archives(root: Path, paths: pd.Series) -> list[Path]:
    """The archives that the paths below the root run through, in the order of the paths."""
    folders = list_folders(paths).combine_chunks().unique().to_pylist()
    found = (find_archive(root / folder) for folder in folders)
    return [archive for archive in dict.fromkeys(found) if archive is not None]


class ArchiveImages(Sequence[ImagePlace]):
    """Images of archives that are read by offset; they cost 11 bytes each."""

    def __init__(self, archives: Sequence[Path], codes: NDArray[np.int64]) -> None:
        self.archives, self.are_plain = archives, True
        self.codes = codes.astype(np.min_scalar_type(len(archives)))  # archive of each image
        self.plains: list[FileIdentity] = []
        self.blocks = np.zeros(len(codes), np.uint32)  # offset, in blocks of a tar
        self.sizes = np.zeros(len(codes), np.int32)  # bytes, at most MAX_IMAGE

    def fill(self, root: Path, paths: pd.Series) -> None:
        """Look the images up, archive by archive; none of the indices is kept here."""
        column = to_arrow_strings(paths)
        order = np.argsort(self.codes, kind="stable")
        bounds = np.searchsorted(self.codes[order], np.arange(len(self.archives) + 1))
        for code, archive in enumerate(_load_archives(self.archives)):
            path, all_rows = archive.path, order[bounds[code] : bounds[code + 1]]
            self.plains.append(archive.plain)
            self.are_plain &= archive.is_plain
            for start in range(0, len(all_rows), ROWS_AT_ONCE):
                rows = all_rows[start : start + ROWS_AT_ONCE]
                names = _name_members(root, path, column.take(pa.array(rows)))
                members = archive.member_table[archive.find_rows(names)]
                self.blocks[rows], self.sizes[rows] = members[:, 0] // BLOCK, members[:, 2]

    def __len__(self) -> int:
        return len(self.codes)

    @overload
    def __getitem__(self, row: int) -> ImagePlace: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[ImagePlace]: ...
    def __getitem__(self, row: int | slice) -> ImagePlace | Sequence[ImagePlace]:
        if isinstance(row, slice):
            return [self[place] for place in range(*row.indices(len(self)))]
        code = int(self.codes[row])
        offset, size = BLOCK * int(self.blocks[row]), int(self.sizes[row])
        return StoredImage(self.archives[code], self.plains[code], offset, size)


def _load_archives(paths: Sequence[Path]) -> Iterator[Archive]:
    """Each archive; of a machine that has not seen a shard, its headers are read once it is
    fetched, several ahead.
    """
    staged = ((path, find_staged(path)) for path in paths)
    unseen = [path for path, shard in staged if shard and not locate_index(shard).exists()]
    waiting, fetched = set(unseen), fetch_ahead(unseen)
    for path in paths:
        yield load_archive(next(fetched) if path in waiting else path)


def _name_members(root: Path, archive: Path, paths: pa.Array) -> list[str]:
    """Paths below the root as names in the archive, which is below the root or around it."""
    if archive.is_relative_to(root) and archive != root:
        start = len(archive.relative_to(root).as_posix()) + 1
        return [path[start:] for path in paths.to_pylist()]
    inner = root.relative_to(archive).as_posix()
    prefix = "" if inner == "." else f"{inner}/"
    return [prefix + path for path in paths.to_pylist()]
