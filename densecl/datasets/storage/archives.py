"""An archive as downloaded, read in place: name -> where its bytes lie. Nothing is ever written
under a member's name.

.tar (also a tar of one tar a class, as ILSVRC2012_img_train.tar) and .zip are read by offset. gzip
cannot be sought: a .tar.gz is decompressed once, whole, to a plain tar in the cache that is named
by the SHA-256 of the .tar.gz. Indices are there too, since listing 1.3 million members means
reading as many headers.
"""

from __future__ import annotations

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

from densecl.datasets.storage.archive_members import iter_tar_members, iter_zip_members
from densecl.datasets.storage.filenames import is_image_name, to_printable
from densecl.errors import DataError
from densecl.paths import ARCHIVES

INDEX_VERSION = b"1"  # of the index files; another number makes older ones unread
HEADER_BYTES = 512  # bytes that tell what a file is
# Photographs hardly compress; a set that grows more than this is no set.
MAX_GROWTH, GROWTH_ALLOWANCE = 20, 2**30  # times, bytes


class Archive:
    """Members by name. Reads are `pread`s, so forked loader processes share the descriptor without
    harm.
    """

    def __init__(self, path: Path) -> None:
        index = ARCHIVES / f"{_compute_cache_key(path)}.npz"
        if not index.exists() or not _find_plain_file(path, index).exists():
            _write_index(path, index)
        with np.load(index) as stored:
            self.names: NDArray[np.bytes_] = stored["names"]  # sorted
            self.member_table: NDArray[np.int64] = stored["where"]
        self.path = path
        self.file = os.open(_find_plain_file(path, index), os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.file)
        self.top_folder = _find_top_folder(self.list_names())

    def list_names(self) -> list[str]:
        """Every name, sorted; those of folders end with a slash."""
        return [name.decode("utf-8", "surrogateescape") for name in self.names.tolist()]

    def find_row(self, name: str) -> int:
        """Where `name` stands, from the archive's root or from below its top folders;
        FileNotFoundError.
        """
        for full_name in (name, self.top_folder + name):
            key = np.bytes_(full_name.encode("utf-8", "surrogateescape"))
            row = int(np.searchsorted(self.names, key))
            if row < len(self.names) and self.names[row] == key:
                return row
        raise FileNotFoundError(2, "no such member", f"{self.path}/{name}")

    def get_size(self, name: str) -> int:
        return int(self.member_table[self.find_row(name), 2])

    def read_member(self, name: str) -> bytes:
        """The member's bytes; OSError where the archive is cut, changed or damaged there."""
        offset, stored, size, crc, deflated = self.member_table[self.find_row(name)].tolist()
        content = os.pread(self.file, stored, offset)
        while 0 < len(content) < stored and (
            more := os.pread(self.file, stored - len(content), offset + len(content))
        ):
            content += more
        if deflated:
            try:
                content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, size + 1)
            except zlib.error:
                content = b""
        if len(content) != size or (crc >= 0 and zlib.crc32(content) != crc):
            raise OSError(5, "damaged inside its archive", f"{self.path}/{name}")
        return content


def is_archive(path: Path) -> bool:
    """True for a file whose first bytes are those of a tar, gzip or zip, whatever its name."""
    return path.is_file() and bool(_detect_format(path))


def open_archive(path: Path) -> Archive:
    """The archive with its index, built on first use; DataError names what is wrong with it, a line
    a member.
    """
    stat = path.stat()
    return _open_cached(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(32)
def _open_cached(path: Path, _size: int, _mtime: int) -> Archive:
    return Archive(path)


def _compute_cache_key(path: Path) -> str:
    stat = path.stat()
    identity = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}".encode(
        "utf-8", "surrogateescape"
    )
    return hashlib.sha256(INDEX_VERSION + identity).hexdigest()[:32]


def _detect_format(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(HEADER_BYTES)
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return ""
    return "tar"


def _find_plain_file(path: Path, index: Path) -> Path:
    """The file that offsets count in: the archive, or the tar that it was decompressed to."""
    with np.load(index) as stored:
        digest = str(stored["digest"])
    return ARCHIVES / f"{digest}.tar" if digest else path


def _write_index(path: Path, index: Path) -> None:
    archive_format, digest, plain = _detect_format(path), "", path
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    try:
        if archive_format == "gzip":
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            plain = ARCHIVES / f"{digest}.tar"
            _decompress_gzip(path, plain)
        with plain.open("rb") as file:
            members = list(
                (iter_zip_members if archive_format == "zip" else iter_tar_members)(path, file)
            )
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
    latest = {
        member.name.encode("utf-8", "surrogateescape"): member for member in members
    }  # as unpacking would
    order = sorted(latest)
    partial = index.with_name(f"{index.name}.{os.getpid()}.partial")
    with partial.open("wb") as out:
        np.savez(
            out,
            names=np.array(order, "S"),
            digest=np.array(digest),
            where=np.array([latest[name][1:] for name in order], np.int64).reshape(-1, 5),
        )
    partial.replace(index)


def _decompress_gzip(path: Path, tar: Path) -> None:
    if tar.exists():
        return
    partial, limit = (
        tar.with_name(f"{tar.name}.{os.getpid()}.partial"),
        MAX_GROWTH * path.stat().st_size + GROWTH_ALLOWANCE,
    )
    try:
        with gzip.open(path) as packed, partial.open("wb") as out:
            while chunk := packed.read(2**20):
                out.write(chunk)
                if out.tell() > limit:
                    raise OSError(f"it unpacks to more than {limit} bytes")
        partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)


def _find_top_folder(names: Iterable[str]) -> str:
    """Folders around all class folders, as "imagenet-a/"; "" where there are none."""
    split = (name.split("/") for name in names if is_image_name(name.rpartition("/")[2]))
    images = [parts for parts in split if not any(part.startswith(".") for part in parts)]
    depth = 0
    while images and all(
        len(parts) > depth + 2 and parts[depth] == images[0][depth] for parts in images
    ):
        depth += 1
    return "".join(part + "/" for part in images[0][:depth]) if depth else ""
