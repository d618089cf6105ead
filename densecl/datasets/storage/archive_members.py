"""What a .tar or .zip holds and where, from its headers; a member that could lead out of it is
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

from densecl.datasets.storage.filenames import to_printable
from densecl.errors import DataError

TAR_BLOCK = 512  # bytes, tar's unit
MAX_LISTED = 20  # refused members that are named


class ArchiveMember(NamedTuple):
    name: str  # "/" for a folder's own entry at its end
    offset: int
    stored: int  # bytes in the archive
    size: int  # bytes
    crc: int = -1  # CRC-32, -1 where the format has none
    deflated: bool = False


def iter_tar_members(path: Path, file: BinaryIO) -> Iterator[ArchiveMember]:
    """Every member, those of inner tars under their tar's name; DataError at the end if any had to
    be refused.
    """
    end, refused = file.seek(0, os.SEEK_END), []
    for name, member in _iter_tar_headers(file, 0, end):
        folder, inner = "", [(name, member)]
        if name.endswith(".tar") and member.isfile():  # a class: its folder has the name of its tar
            folder = name.removesuffix(".tar") + "/"
            inner = list(
                _iter_tar_headers(file, member.offset_data, member.offset_data + member.size)
            )
        for inner_name, header in inner:
            full_name = folder + inner_name
            reason = (
                _find_name_problem(inner_name)
                or _find_name_problem(full_name)
                or _find_member_problem(header)
            )
            if reason:
                refused.append((full_name, reason))
            elif header.isdir():
                yield ArchiveMember(_normalise_name(full_name) + "/", 0, 0, 0)
            else:
                yield ArchiveMember(
                    _normalise_name(full_name), header.offset_data, header.size, header.size
                )
    _raise_refused(path, refused)


def _iter_tar_headers(
    file: BinaryIO, start: int, end: int
) -> Iterator[tuple[str, tarfile.TarInfo]]:
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
    if stop >= end or file.read(TAR_BLOCK).strip(b"\0"):
        raise tarfile.ReadError(f"no end marker at byte {stop}")


def _find_member_problem(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {to_printable(member.linkname)}"
    if member.issparse():
        return "a sparse file"
    return "" if member.isfile() or member.isdir() else "a device or a pipe"


def iter_zip_members(path: Path, file: BinaryIO) -> Iterator[ArchiveMember]:
    """Every member; DataError at the end if any had to be refused."""
    refused = []
    with zipfile.ZipFile(file) as bundle:
        for info in bundle.infolist():
            name = info.filename
            reason = _find_name_problem(name) or _find_entry_problem(info)
            if reason:
                refused.append((name, reason))
            elif info.is_dir():
                yield ArchiveMember(_normalise_name(name) + "/", 0, 0, 0)
            else:
                file.seek(info.header_offset + 26)
                offset = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
                deflated = info.compress_type == zipfile.ZIP_DEFLATED
                yield ArchiveMember(
                    _normalise_name(name),
                    offset,
                    info.compress_size,
                    info.file_size,
                    info.CRC,
                    deflated,
                )
    _raise_refused(path, refused)


def _find_entry_problem(info: zipfile.ZipInfo) -> str:
    file_type = (
        stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
    )  # 3: written on Unix
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a link" if file_type == stat.S_IFLNK else "a device or a pipe"
    if info.flag_bits & 1:
        return "encrypted"
    is_supported = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return "" if is_supported else f"compressed by method {info.compress_type}"


def _find_name_problem(name: str) -> str:
    if name.startswith("/"):
        return "an absolute name"
    return "a name that leaves the archive" if ".." in name.split("/") else ""


def _normalise_name(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _raise_refused(path: Path, refused: list[tuple[str, str]]) -> None:
    lines = [
        f"{to_printable(path)}: {to_printable(name)}: {reason}"
        for name, reason in refused[:MAX_LISTED]
    ]
    if refused:
        more = f" and {len(refused) - MAX_LISTED} more" if len(refused) > MAX_LISTED else ""
        lines[-1] += (
            f"{more}; expected plain files and folders only: do not use this archive, or pack it "
            f"anew"
        )
        raise DataError("\n".join(lines))
