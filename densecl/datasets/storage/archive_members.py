"""List the members of a .tar or .zip from its headers; unsafe member names are rejected."""

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

TAR_BLOCK = 512  # bytes, the unit of tar
MAX_LISTED = 20  # refused members that an error names


class ArchiveMember(NamedTuple):
    name: str  # that of a folder ends with "/"
    offset: int
    stored: int  # bytes in the archive
    size: int  # bytes
    crc: int = -1  # CRC-32, -1 where the format has none
    deflated: bool = False


def list_members(path: Path, file: BinaryIO, *, is_zip: bool) -> list[ArchiveMember]:
    """Every member, those of inner tars under the name of their tar; DataError that names the
    members refused.
    """
    members, refused = [], []
    for member, own_problem in _iter_zip_members(file) if is_zip else _iter_tar_members(file):
        problem = _find_name_problem(member.name) or own_problem
        if problem:
            refused.append(f"{to_printable(path)}: {to_printable(member.name)}: {problem}")
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        members.append(member._replace(name="/".join(parts) + "/" * member.name.endswith("/")))
    if refused:
        more = f" and {len(refused) - MAX_LISTED} more" if len(refused) > MAX_LISTED else ""
        raise DataError(
            "\n".join(refused[:MAX_LISTED])
            + f"{more}; expected plain files and folders only: do not use this archive, or pack it "
            "anew"
        )
    return members


def _iter_tar_members(file: BinaryIO) -> Iterator[tuple[ArchiveMember, str]]:
    """Every member with its problem, if any."""
    for header in _iter_tar_headers(file, 0, file.seek(0, os.SEEK_END)):
        folder, inner = "", iter([header])
        if header.name.endswith(".tar") and header.isfile():  # one class; its tar names the folder
            folder = header.name.removesuffix(".tar") + "/"
            start = header.offset_data
            inner = _iter_tar_headers(file, start, start + header.size)
        for member in inner:
            problem = _find_name_problem(member.name) or _find_header_problem(member)
            name = folder + member.name + "/" * member.isdir()
            yield ArchiveMember(name, member.offset_data, member.size, member.size), problem


def _iter_tar_headers(file: BinaryIO, start: int, end: int) -> Iterator[tarfile.TarInfo]:
    """Iterate over the headers between two offsets; ReadError unless the archive ends with its end
    marker.

    tarfile itself takes a damaged header, or the end of a cut file, for the end of the archive.
    """
    file.seek(start)
    tar = tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape")
    while (member := tar.next()) is not None and member.offset < end:
        yield member
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header
    stop = tar.offset if member is None else member.offset
    file.seek(stop)
    if stop >= end or file.read(TAR_BLOCK).strip(b"\0"):
        raise tarfile.ReadError(f"no end marker at byte {stop}")


def _find_header_problem(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {to_printable(member.linkname)}"
    if member.issparse():
        return "a sparse file"
    return "" if member.isfile() or member.isdir() else "a device or a pipe"


def _iter_zip_members(file: BinaryIO) -> Iterator[tuple[ArchiveMember, str]]:
    """Every member with its problem, if any."""
    with zipfile.ZipFile(file) as bundle:
        for info in bundle.infolist():
            file.seek(info.header_offset + 26)
            offset = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            sizes = info.compress_size, info.file_size
            yield (
                ArchiveMember(info.filename, offset, *sizes, info.CRC, deflated),
                _find_entry_problem(info),
            )


def _find_entry_problem(info: zipfile.ZipInfo) -> str:
    is_unix = info.create_system == 3  # only there the attributes hold a file type
    file_type = stat.S_IFMT(info.external_attr >> 16) if is_unix else 0
    if file_type == stat.S_IFLNK:
        return "a link"
    if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "a device or a pipe"
    if info.flag_bits & 1:
        return "encrypted"
    is_supported = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return "" if is_supported else f"compressed by method {info.compress_type}"


def _find_name_problem(name: str) -> str:
    if name.startswith("/"):
        return "an absolute name"
    return "a name that leaves the archive" if ".." in name.split("/") else ""
