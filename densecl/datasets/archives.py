"""An archive as downloaded, read in place: name -> where its bytes lie. Nothing is ever written under a member's name.

.tar (also a tar of one tar a class, as ILSVRC2012_img_train.tar) and .zip are read by offset. gzip cannot be sought: a
.tar.gz is decompressed once, whole, to a plain tar in the cache that is named by the SHA-256 of the .tar.gz. Indices lie
there too, since listing 1.3 million members means reading as many headers.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import struct
import tarfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from densecl.datasets.names import is_image, shown
from densecl.errors import DataError
from densecl.layout import ARCHIVES

FORM = b"1"  # of the index files; another number makes older ones unread
BLOCK = 512  # bytes, tar's unit
LISTED = 20  # refused members that are named
# Photographs hardly compress; a set that grows more than this is no set.
GROWTH, ALLOWANCE = 20, 2**30  # times, bytes


class Member(NamedTuple):
    name: str  # "/" for a folder's own entry at its end
    offset: int
    stored: int  # bytes in the archive
    size: int  # bytes
    crc: int = -1  # CRC-32, -1 where the format has none
    deflated: bool = False


class Archive:
    """Members by name. Reads are `pread`s, so forked loader processes share the descriptor without harm."""

    def __init__(self, path: Path) -> None:
        index = ARCHIVES / f"{_stamp(path)}.npz"
        if not index.exists() or not _plain(path, index).exists():
            _write_index(path, index)
        with np.load(index) as found:
            self.names: NDArray[np.bytes_] = found["names"]  # sorted
            self.where: NDArray[np.int64] = found["where"]
        self.path = path
        self.file = os.open(_plain(path, index), os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.file)
        self.top = _top(self.listing())

    def listing(self) -> list[str]:
        """Every name, sorted; those of folders end with a slash."""
        return [name.decode("utf-8", "surrogateescape") for name in self.names.tolist()]

    def row(self, name: str) -> int:
        """Where `name` stands, from the archive's root or from below its top folders; FileNotFoundError."""
        for tried in (name, self.top + name):
            key = np.bytes_(tried.encode("utf-8", "surrogateescape"))
            place = int(np.searchsorted(self.names, key))
            if place < len(self.names) and self.names[place] == key:
                return place
        raise FileNotFoundError(2, "no such member", f"{self.path}/{name}")

    def size(self, name: str) -> int:
        return int(self.where[self.row(name), 2])

    def read(self, name: str) -> bytes:
        """The member's bytes; OSError where the archive is cut, changed or damaged there."""
        offset, stored, size, crc, deflated = self.where[self.row(name)].tolist()
        content = os.pread(self.file, stored, offset)
        while 0 < len(content) < stored and (more := os.pread(self.file, stored - len(content), offset + len(content))):
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
    return path.is_file() and bool(_kind(path))


def opened(path: Path) -> Archive:
    """The archive with its index, built on first use; DataError names what is wrong with it, a line a member."""
    at = path.stat()
    return _opened(path, at.st_size, at.st_mtime_ns)


@lru_cache(32)
def _opened(path: Path, _size: int, _mtime: int) -> Archive:
    return Archive(path)


def _stamp(path: Path) -> str:
    at = path.stat()
    told = f"{path.resolve()}\0{at.st_size}\0{at.st_mtime_ns}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(FORM + told).hexdigest()[:32]


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(BLOCK)
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return "zip"
    try:
        tarfile.open(path, "r:").close()
    except tarfile.TarError:
        return ""
    return "tar"


def _plain(path: Path, index: Path) -> Path:
    """The file that offsets count in: the archive, or the tar that it was decompressed to."""
    with np.load(index) as found:
        digest = str(found["digest"])
    return ARCHIVES / f"{digest}.tar" if digest else path


def _write_index(path: Path, index: Path) -> None:
    kind, digest, plain = _kind(path), "", path
    ARCHIVES.mkdir(parents=True, exist_ok=True)
    try:
        if kind == "gzip":
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            plain = ARCHIVES / f"{digest}.tar"
            _decompress(path, plain)
        with plain.open("rb") as file:
            members = list((_zip_members if kind == "zip" else _tar_members)(path, file))
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{shown(path)}: damaged or cut archive ({reason}); download it again") from None
    latest = {member.name.encode("utf-8", "surrogateescape"): member for member in members}  # as unpacking would
    order = sorted(latest)
    partial = index.with_name(f"{index.name}.{os.getpid()}.partial")
    with partial.open("wb") as out:
        np.savez(out, names=np.array(order, "S"), digest=np.array(digest),
                 where=np.array([latest[name][1:] for name in order], np.int64).reshape(-1, 5))  # fmt: skip
    partial.replace(index)


def _decompress(path: Path, tar: Path) -> None:
    if tar.exists():
        return
    partial, limit = tar.with_name(f"{tar.name}.{os.getpid()}.partial"), GROWTH * path.stat().st_size + ALLOWANCE
    try:
        with gzip.open(path) as packed, partial.open("wb") as out:
            while chunk := packed.read(2**20):
                out.write(chunk)
                if out.tell() > limit:
                    raise OSError(f"it unpacks to more than {limit} bytes")
        partial.replace(tar)
    finally:
        partial.unlink(missing_ok=True)


def _tar_members(path: Path, file: BinaryIO) -> Iterator[Member]:
    end, refused = file.seek(0, os.SEEK_END), []
    for name, member in _headers(file, 0, end):
        if name.endswith(".tar") and member.isfile():  # a class: its folder has the name of its tar
            folder = name.removesuffix(".tar")
            inner = [(f"{folder}/{below}", each) for below, each in
                     _headers(file, member.offset_data, member.offset_data + member.size)]  # fmt: skip
        else:
            inner = [(name, member)]
        for full, each in inner:
            reason = _unsafe(full) or _no_file(each)
            if reason:
                refused.append((full, reason))
            elif each.isdir():
                yield Member(_cleaned(full) + "/", 0, 0, 0)
            else:
                yield Member(_cleaned(full), each.offset_data, each.size, each.size)
    _refuse(path, refused)


def _headers(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Every header between two offsets; ReadError where the listing stops at anything but the end marker.

    tarfile itself takes a damaged header, or the end of a cut file, for the end of the archive.
    """
    file.seek(start)
    tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
    while (member := tar.next()) is not None and member.offset < end:
        yield member.name, member
        tar.members.clear()  # type: ignore[attr-defined]  # it keeps every header else
    stop = tar.offset if member is None else member.offset
    file.seek(stop)
    if stop >= end or file.read(BLOCK).strip(b"\0"):
        raise tarfile.ReadError(f"no end marker at byte {stop}")


def _no_file(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {shown(member.linkname)}"
    if member.issparse():
        return "a sparse file"
    return "" if member.isfile() or member.isdir() else "a device or a pipe"


def _zip_members(path: Path, file: BinaryIO) -> Iterator[Member]:
    refused = []
    with zipfile.ZipFile(file) as bundle:
        for info in bundle.infolist():
            name = info.filename
            reason = _unsafe(name) or _no_plain_entry(info)
            if reason:
                refused.append((name, reason))
            elif info.is_dir():
                yield Member(_cleaned(name) + "/", 0, 0, 0)
            else:
                file.seek(info.header_offset + 26)
                offset = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
                deflated = info.compress_type == zipfile.ZIP_DEFLATED
                yield Member(_cleaned(name), offset, info.compress_size, info.file_size, info.CRC, deflated)
    _refuse(path, refused)


def _no_plain_entry(info: zipfile.ZipInfo) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0  # 3: written on Unix
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link" if kind == stat.S_IFLNK else "a device or a pipe"
    if info.flag_bits & 1:
        return "encrypted"
    known = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return "" if known else f"compressed by method {info.compress_type}"


def _unsafe(name: str) -> str:
    if name.startswith("/"):
        return "an absolute name"
    return "a name that leaves the archive" if ".." in name.split("/") else ""


def _cleaned(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _refuse(path: Path, refused: list[tuple[str, str]]) -> None:
    told = [f"{shown(path)}: {shown(name)}: {reason}" for name, reason in refused[:LISTED]]
    if refused:
        more = f" and {len(refused) - LISTED} more" if len(refused) > LISTED else ""
        told[-1] += f"{more}; expected plain files and folders only: do not use this archive, or pack it anew"
        raise DataError("\n".join(told))


def _top(names: Iterable[str]) -> str:
    """Folders around all class folders, as "imagenet-a/"; "" where there are none."""
    split = (name.split("/") for name in names if is_image(name.rpartition("/")[2]))
    images = [parts for parts in split if not any(part.startswith(".") for part in parts)]
    depth = 0
    while images and all(len(parts) > depth + 2 and parts[depth] == images[0][depth] for parts in images):
        depth += 1
    return "".join(part + "/" for part in images[0][:depth]) if depth else ""
