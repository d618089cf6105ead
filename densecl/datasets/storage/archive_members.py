"""What a .tar or .zip holds and where, told from its headers; a member that could lead out of it is
refused by name.
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from densecl.datasets.storage.filenames import shown
from densecl.errors import DataError

BLOCK = 512  # bytes, tar's unit
LISTED = 20  # refused members that are named


class Member(NamedTuple):
    name: str  # "/" for a folder's own entry at its end
    offset: int
    stored: int  # bytes in the archive
    size: int  # bytes
    crc: int = -1  # CRC-32, -1 where the format has none
    deflated: bool = False


def tar_members(path: Path, file: BinaryIO) -> Iterator[Member]:
    """Every member, those of inner tars under their tar's name; DataError at the end if any had to
    be refused.
    """
    end, refused = file.seek(0, os.SEEK_END), []
    for name, member in _headers(file, 0, end):
        folder, inner = "", [(name, member)]
        if name.endswith(".tar") and member.isfile():  # a class: its folder has the name of its tar
            folder = name.removesuffix(".tar") + "/"
            inner = list(_headers(file, member.offset_data, member.offset_data + member.size))
        for below, each in inner:
            full = folder + below
            reason = _unsafe(below) or _unsafe(full) or _no_file(each)
            if reason:
                refused.append((full, reason))
            elif each.isdir():
                yield Member(_cleaned(full) + "/", 0, 0, 0)
            else:
                yield Member(_cleaned(full), each.offset_data, each.size, each.size)
    _refuse(path, refused)


def _headers(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, tarfile.TarInfo]]:
    """Every header between two offsets; ReadError where the listing stops at anything but the end
    marker.

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


def zip_members(path: Path, file: BinaryIO) -> Iterator[Member]:
    """Every member; DataError at the end if any had to be refused."""
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
                yield Member(
                    _cleaned(name), offset, info.compress_size, info.file_size, info.CRC, deflated
                )
    _refuse(path, refused)


def _no_plain_entry(info: zipfile.ZipInfo) -> str:
    kind = (
        stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    )  # 3: written on Unix
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
        told[-1] += (
            f"{more}; expected plain files and folders only: do not use this archive, or pack it "
            f"anew"
        )
        raise DataError("\n".join(told))
