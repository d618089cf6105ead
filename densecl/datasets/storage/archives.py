"""Read a downloaded archive in place, by the offset of each member. Nothing is ever written under a
member's name.

.tar (also a tar of one tar per class, as ILSVRC2012_img_train.tar) and .zip are read by offset. A
.tar.gz and a .parquet cannot be: they are unpacked once, whole, to a plain tar in the cache, named
by the SHA-256 of the file. Indices are cached too: listing 1.3 million members means reading as
many headers.
"""

import gzip
import hashlib
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from densecl.datasets.storage.archive_members import (
    GROWTH_ALLOWANCE,
    MAX_GROWTH,
    TAR_BLOCK,
    ArchiveMember,
    list_members,
)
from densecl.datasets.storage.filenames import WNID, find_litter, is_image_name, to_printable
from densecl.datasets.storage.open_files import OPEN_FILES, FileIdentity, identify_file
from densecl.datasets.storage.parquet_images import MAGIC, copy_to_tar
from densecl.datasets.storage.shard_cache import find_staged, stage_missing
from densecl.errors import DataError
from densecl.paths import ARCHIVES
from densecl.runtime.cli import RETRYABLE_ERRNOS

T = TypeVar("T")
ATTEMPTS = 8  # to open a shard
MAX_PADDED, MAX_PADDING = 2**28, 4  # bytes of an index's names, and times of the names themselves
INDEX_VERSION = b"8"  # index files of another version are not read


class Archive:
    """Members by name, and where their bytes lie. A descriptor is opened when a member is read."""

    def __init__(self, identity: FileIdentity) -> None:
        path, index = identity.path, locate_index(identity)
        if not index.exists():
            retry_staged(path, lambda: _write_index(path, index))
        with np.load(index) as stored:
            self.names: NDArray[np.bytes_] = stored["names"]  # sorted
            self.member_table: NDArray[np.int64] = stored["member_table"]
            self.replaced = int(stored["replaced"])  # files of which a later member has the name
            tar_name, top_folder = str(stored["tar_name"]), stored["top_folder"].item()
        self.path, self.top_folder = path, os.fsdecode(top_folder)
        # What is read: the file itself, or what it was unpacked to.
        self.plain = identify_file(ARCHIVES / tar_name) if tar_name else identity

    def list_names(self) -> list[str]:
        """All names, sorted; folder names end with a slash."""
        return [os.fsdecode(name) for name in self.names.tolist()]

    @property
    def is_plain(self) -> bool:
        """Whether all members are stored as they are, as in tars."""
        return bool((self.member_table[:, 3] < 0).all() and not self.member_table[:, 4].any())

    def find_row(self, name: str) -> int:
        """Index entry of `name`, relative to the archive's root or to its top folders; raises
        FileNotFoundError.
        """
        return int(self.find_rows([name])[0])

    def find_rows(self, names: Sequence[str]) -> NDArray[np.int64]:
        """As `find_row`, of many names."""
        rows = self._search(names)
        if self.top_folder and len(missing := np.flatnonzero(rows < 0)):
            rows[missing] = self._search([self.top_folder + names[k] for k in missing.tolist()])
        if len(missing := np.flatnonzero(rows < 0)):
            name = names[int(missing[0])]
            raise FileNotFoundError(2, "no such member", f"{self.path}/{name}")
        return rows

    def _search(self, names: Sequence[str]) -> NDArray[np.int64]:
        """-1 where there is no such member."""
        keys = np.array([os.fsencode(name) for name in names], "S")
        rows = np.searchsorted(self.names, keys)
        inside = np.minimum(rows, max(0, len(self.names) - 1))
        found = self.names[inside] == keys if len(self.names) else np.zeros(len(keys), bool)
        return np.where(found, inside, -1)

    def find_name(self, offset: int) -> str | None:
        """The member whose bytes begin at an offset."""
        rows = np.flatnonzero(self.member_table[:, 0] == offset)
        return os.fsdecode(self.names[rows[-1]]) if len(rows) else None

    def get_size(self, name: str) -> int:
        """Bytes of the member."""
        return int(self.member_table[self.find_row(name), 2])

    def read_member(self, name: str) -> bytes:
        """The member's bytes; OSError if the archive is truncated, changed or corrupt."""
        offset, stored, size, crc, deflated = self.member_table[self.find_row(name)].tolist()
        content = read_plain(self.plain, stored, offset)
        try:
            if deflated:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except zlib.error:
            content = b""
        if len(content) != size or (crc >= 0 and zlib.crc32(content) != crc):
            raise OSError(5, "damaged inside its archive", f"{self.path}/{name}")
        return content


def locate_index(identity: FileIdentity) -> Path:
    """The file that holds the index of an archive, now or later."""
    text = f"{identity.path.resolve()}\0{identity.size}\0{identity.modified_ns}"
    return ARCHIVES / f"{hashlib.sha256(INDEX_VERSION + os.fsencode(text)).hexdigest()[:32]}.npz"


def read_plain(plain: FileIdentity, size: int, offset: int) -> bytes:
    """Bytes of a file that is read by offset; a shard that is not in the cache is fetched first."""
    return retry_staged(plain.path, lambda: OPEN_FILES.read(plain, size, offset))


def retry_staged(path: Path, call: Callable[[], T]) -> T:
    """The result of a call that opens a file. A shard is fetched first, and again if others remove
    it before it is open, in a cache that is smaller than what they read.
    """
    for _ in range(ATTEMPTS):
        with suppress(FileNotFoundError):
            return call()
        if not stage_missing(path):
            break
    return call()


def open_archive(path: Path) -> Archive:
    """An archive with its index, which is built on first use; DataError lists its problems, one
    line per member.
    """
    return _open_cached(find_staged(path) or identify_file(path))


def load_archive(path: Path) -> Archive:
    """As `open_archive`, of an archive that is read once: its index is not cached."""
    return Archive(find_staged(path) or identify_file(path))


_open_cached = lru_cache(256)(Archive)  # indices, of 60 bytes per member


def detect_format(path: Path) -> str:
    """The format of an archive (tar, gzip, zip, parquet) by its first bytes, not its name; else
    "".
    """
    return _read_format(path) if path.is_file() else ""


def _read_format(path: Path) -> str:
    """As `detect_format`, of a file; FileNotFoundError."""
    with path.open("rb") as file:
        head = file.read(TAR_BLOCK)
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] == MAGIC:
        return "parquet"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return "tar" if head == bytes(TAR_BLOCK) else ""  # the end marker alone
    return "tar"


def check_longest_name(path: Path, names: Sequence[bytes]) -> None:
    """DataError where one long name makes the index many times as large as the names: each takes
    the length of the longest there.
    """
    longest = max(map(len, names), default=0)
    size, total = longest * len(names), sum(map(len, names))
    if size > MAX_PADDED and size > MAX_PADDING * total:
        raise DataError(
            f"{to_printable(path)}: found a name of {longest:,} bytes among {len(names):,} "
            f"members, whose index would take {size / 2**20:,.0f} MiB; unpack the archive, or "
            "leave out that member"
        )


def _write_index(path: Path, index: Path) -> None:
    archive_format, tar = _read_format(path), None
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    try:
        if archive_format in ("gzip", "parquet"):
            tar = _write_plain_tar(path, archive_format)
        with (tar or path).open("rb") as file:
            members = list_members(path, file, is_zip=archive_format == "zip")
    # tarfile and zipfile raise whatever they meet: ValueError, RecursionError, MemoryError, ...
    except Exception as error:
        if tar:
            tar.unlink(missing_ok=True)
        if (
            isinstance(error, DataError | FileNotFoundError)
            or getattr(error, "errno", None) in RETRYABLE_ERRNOS
        ):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{to_printable(path)}: damaged or cut archive ({to_printable(reason)[:200]}); "
            "download it again"
        ) from None
    latest = {os.fsencode(member.name): member for member in members}  # as unpacking would
    order = sorted(latest)
    check_longest_name(path, order)
    partial = index.with_name(f"{index.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            np.savez(
                out,
                names=np.array(order, "S"),
                member_table=np.array([latest[name][1:] for name in order], np.int64).reshape(
                    -1, 5
                ),
                replaced=np.array(_count_files(members) - _count_files(latest.values())),
                tar_name=np.array(tar.name if tar else ""),
                top_folder=np.array(os.fsencode(_find_top_folder(map(os.fsdecode, order)))),
            )
        partial.replace(index)
    finally:
        partial.unlink(missing_ok=True)


def _count_files(members: Iterable[ArchiveMember]) -> int:
    return sum(not member.name.endswith("/") for member in members)


def _write_plain_tar(path: Path, archive_format: str) -> Path:
    """The plain tar, which can be read by offset; an error leaves nothing behind."""
    with path.open("rb") as file:
        tar = ARCHIVES / f"{hashlib.file_digest(file, 'sha256').hexdigest()}.tar"
    if tar.exists():
        return tar
    partial = tar.with_name(f"{tar.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as out:
            copy_to_tar(path, out) if archive_format == "parquet" else _decompress(path, out)
        return partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)


def _decompress(path: Path, out: BinaryIO) -> None:
    limit = MAX_GROWTH * path.stat().st_size + GROWTH_ALLOWANCE
    with gzip.open(path) as packed:
        while chunk := packed.read(2**20):
            out.write(chunk)
            if out.tell() > limit:
                raise OSError(f"it unpacks to more than {limit} bytes")


def _find_top_folder(names: Iterable[str]) -> str:
    """The folders around all class folders, e.g. "imagenet-a/"; "" if there are none.

    A folder is one of them if it is the only one at its place, most images there lie in folders
    inside it, and its name is not that of a class of ImageNet.
    """
    split = (name.split("/") for name in names if is_image_name(name.rpartition("/")[2]))
    counts = Counter(tuple(parts[:-1]) for parts in split if not find_litter(parts))
    top: tuple[str, ...] = ()
    while True:
        depth = len(top)
        inside = {folders: count for folders, count in counts.items() if len(folders) > depth}
        if len({folders[depth] for folders in inside}) != 1:
            break
        folder = next(iter(inside))[depth]
        nested = sum(count for folders, count in inside.items() if len(folders) > depth + 1)
        if WNID.fullmatch(folder) or 2 * nested <= sum(counts.values()):
            break
        top, counts = (*top, folder), Counter(inside)
    return "".join(f"{folder}/" for folder in top)
