"""Read a downloaded archive in place, by the offset of each member. Nothing is ever written under a
member's name.

.tar (also a tar of one tar per class, as ILSVRC2012_img_train.tar) and .zip are read by offset. A
.tar.gz cannot be: it is decompressed once, whole, to a plain tar in the cache, named by the SHA-256
of the .tar.gz. Indices are cached too: listing 1.3 million members means reading as many headers.
"""

import gzip
import hashlib
import os
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densecl.datasets.storage.archive_members import ArchiveMember, list_members
from densecl.datasets.storage.filenames import is_image_name, to_printable
from densecl.errors import DataError
from densecl.paths import ARCHIVES

INDEX_VERSION = b"3"  # index files of another version are not read
# Guard against decompression bombs: photographs hardly compress.
MAX_GROWTH, GROWTH_ALLOWANCE = 20, 2**30  # times, bytes


class Archive:
    """Members by name. It reads with `pread`, so forked loader processes can share the
    descriptor.
    """

    def __init__(self, path: Path, size: int, modified_ns: int) -> None:
        identity = os.fsencode(f"{path.resolve()}\0{size}\0{modified_ns}")
        key = hashlib.sha256(INDEX_VERSION + identity).hexdigest()[:32]
        index = ARCHIVES / f"{key}.npz"
        if not index.exists():
            _write_index(path, index)
        with np.load(index) as stored:
            self.names: NDArray[np.bytes_] = stored["names"]  # sorted
            self.member_table: NDArray[np.int64] = stored["member_table"]
            self.replaced = int(stored["replaced"])  # files of which a later member has the name
            tar_name = str(stored["tar_name"])
        self.path, plain = path, ARCHIVES / tar_name if tar_name else path
        self.file = os.open(plain, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.file)
        self.top_folder = _find_top_folder(self.list_names())

    def list_names(self) -> list[str]:
        """All names, sorted; folder names end with a slash."""
        return [os.fsdecode(name) for name in self.names.tolist()]

    def find_row(self, name: str) -> int:
        """Index entry of `name`, relative to the archive's root or to its top folders; raises
        FileNotFoundError.
        """
        for full_name in (name, self.top_folder + name):
            key = np.bytes_(os.fsencode(full_name))
            row = int(np.searchsorted(self.names, key))
            if row < len(self.names) and self.names[row] == key:
                return row
        raise FileNotFoundError(2, "no such member", f"{self.path}/{name}")

    def get_size(self, name: str) -> int:
        """Bytes of the member."""
        return int(self.member_table[self.find_row(name), 2])

    def read_member(self, name: str) -> bytes:
        """The member's bytes; OSError if the archive is truncated, changed or corrupt."""
        offset, stored, size, crc, deflated = self.member_table[self.find_row(name)].tolist()
        content = os.pread(self.file, stored, offset)
        try:
            if deflated:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
        except zlib.error:
            content = b""
        if len(content) != size or (crc >= 0 and zlib.crc32(content) != crc):
            raise OSError(5, "damaged inside its archive", f"{self.path}/{name}")
        return content


def open_archive(path: Path) -> Archive:
    """An archive with its index, which is built on first use; DataError lists its problems, one
    line per member.
    """
    stat = path.stat()
    return _open_cached(path, stat.st_size, stat.st_mtime_ns)


_open_cached = lru_cache(32)(Archive)


def detect_format(path: Path) -> str:
    """The format of an archive (tar, gzip, zip) by its first bytes, not its name; else ""."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return ""
    return "tar"


def _write_index(path: Path, index: Path) -> None:
    archive_format = detect_format(path)
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    try:
        tar_name = _decompress_gzip(path).name if archive_format == "gzip" else ""
        with (ARCHIVES / tar_name if tar_name else path).open("rb") as file:
            members = list_members(path, file, is_zip=archive_format == "zip")
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{to_printable(path)}: damaged or cut archive ({reason}); download it again"
        ) from None
    latest = {os.fsencode(member.name): member for member in members}  # as unpacking would
    order = sorted(latest)
    partial = index.with_name(f"{index.name}.{os.getpid()}.partial")
    with partial.open("wb") as out:
        np.savez(
            out,
            names=np.array(order, "S"),
            member_table=np.array([latest[name][1:] for name in order], np.int64).reshape(-1, 5),
            replaced=np.array(_count_files(members) - _count_files(latest.values())),
            tar_name=np.array(tar_name),
        )
    partial.replace(index)


def _count_files(members: Iterable[ArchiveMember]) -> int:
    return sum(not member.name.endswith("/") for member in members)


def _decompress_gzip(path: Path) -> Path:
    """The plain tar; DataError leaves nothing behind."""
    with path.open("rb") as file:
        tar = ARCHIVES / f"{hashlib.file_digest(file, 'sha256').hexdigest()}.tar"
    if tar.exists():
        return tar
    limit = MAX_GROWTH * path.stat().st_size + GROWTH_ALLOWANCE
    partial = tar.with_name(f"{tar.name}.{os.getpid()}.partial")
    try:
        with gzip.open(path) as packed, partial.open("wb") as out:
            while chunk := packed.read(2**20):
                out.write(chunk)
                if out.tell() > limit:
                    raise OSError(f"it unpacks to more than {limit} bytes")
        return partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)


def _find_top_folder(names: Iterable[str]) -> str:
    """The folders around all class folders, e.g. "imagenet-a/"; "" if there are none."""
    split = (name.split("/") for name in names if is_image_name(name.rpartition("/")[2]))
    outer = {
        "/".join(parts[:-2]) for parts in split if not any(part.startswith(".") for part in parts)
    }
    common = os.path.commonpath(outer or [""])
    return f"{common}/" if common else ""
