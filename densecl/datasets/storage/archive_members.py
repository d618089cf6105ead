"""List the members of a .tar or .zip from its headers; what is unsafe to read is refused."""

import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from densecl.datasets.storage.filenames import find_litter, is_image_name, to_printable
from densecl.errors import DataError
from densecl.runtime.cli import shorten_line

TAR_BLOCK = 512  # bytes, the unit of tar
MAX_LISTED = 20  # refused members that an error names
# Limits that no archive of photographs comes near; each bounds the memory that an archive can take.
MAX_HEADER = 2**20  # bytes of one header of a tar, which tarfile reads whole
MAX_GLOBAL_HEADERS = 64  # values of a tar for all members, which tarfile copies for each member
MAX_NAME, MAX_PART, MAX_PARTS = 1024, 255, 32  # bytes of a name and of its parts, and parts
MAX_IMAGE = 2**28  # bytes of an image, which is read whole
# Photographs hardly compress.
MAX_GROWTH, GROWTH_ALLOWANCE = 20, 2**30  # times the size of the archive, and bytes beside


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
    members, refused, unpacked = [], [], 0
    end = file.seek(0, os.SEEK_END)
    limit = MAX_GROWTH * end + GROWTH_ALLOWANCE
    for member, own_problem in _iter_zip_members(file) if is_zip else _iter_tar_members(file):
        problem = _find_name_problem(member.name) or own_problem or _find_size_problem(member, end)
        unpacked += member.size
        if unpacked > limit:
            raise OSError(f"it unpacks to more than {limit} bytes")
        if problem:
            refused.append(f"{to_printable(path)}: {_shorten(member.name)}: {problem}")
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
        parts = [part for part in header.name.split("/") if part != "."]
        is_litter = find_litter(parts)  # ._n01440764.tar is no tar
        if header.name.endswith(".tar") and header.isfile() and not is_litter:
            # One class; its tar names the folder.
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
    headers = HeaderReader(file)
    tar = tarfile.TarFile(
        fileobj=headers,  # type: ignore[arg-type]  # reading calls no other method
        encoding="utf-8",
        errors="surrogateescape",
    )
    while (member := tar.next()) is not None and member.offset < end:
        if member.size < 0:  # the next header would be an earlier one, for ever
            raise tarfile.ReadError(f"a member of {member.size} bytes at byte {member.offset}")
        if len(tar.pax_headers) > MAX_GLOBAL_HEADERS:
            raise tarfile.ReadError(f"more than {MAX_GLOBAL_HEADERS} values for all members")
        yield member
        tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header
    stop = tar.offset if member is None else member.offset
    file.seek(stop)
    if stop >= end or file.read(TAR_BLOCK).strip(b"\0"):
        raise tarfile.ReadError(f"no end marker at byte {stop}")


class HeaderReader:
    """A tar as tarfile reads it here: headers only. ReadError for one of more than MAX_HEADER or of
    fewer than 0 bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.seek, self.tell, self.file = file.seek, file.tell, file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes at byte {self.tell()}")
        return self.file.read(size)


def _find_header_problem(member: tarfile.TarInfo) -> str:
    if member.issym() or member.islnk():
        return f"a link to {_shorten(member.linkname)}"
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
            # `filename` ends at a NUL, under which two members could hide.
            yield (
                ArchiveMember(info.orig_filename, offset, *sizes, info.CRC, deflated),
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
    if "\0" in name:
        return "a name with a NUL"
    parts = name.split("/")
    sizes = [len(os.fsencode(part)) for part in parts]
    if sum(sizes) > MAX_NAME or max(sizes) > MAX_PART or len(parts) > MAX_PARTS:
        return f"a name of {sum(sizes)} bytes in {len(parts)} parts"
    return "a name that leaves the archive" if ".." in parts else ""


def _find_size_problem(member: ArchiveMember, end: int) -> str:
    if member.offset + member.stored > end:
        return "a file that ends after its archive"
    is_image = is_image_name(member.name.rpartition("/")[2])
    if is_image and max(member.stored, member.size) > MAX_IMAGE:
        return f"an image of {member.size} bytes, above {MAX_IMAGE}"
    return ""


def _shorten(name: str) -> str:
    """Of any length and any characters, in an error of one line."""
    return shorten_line(to_printable(name))
