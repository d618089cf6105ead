"""An archive, read in place, is the folder that it unpacks to; what could lead out of it is refused
by name.
"""

import contextlib
import gzip
import io
import os
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from densecl import paths
from densecl.config.params import DataParams
from densecl.datasets.manifests.listing import check_root, list_classes, list_dataset
from densecl.datasets.manifests.scan import scan_dataset
from densecl.datasets.storage import archive_members, archives
from densecl.datasets.storage.archives import open_archive
from densecl.datasets.storage.image_root import get_file_size, open_image_root, read_file
from densecl.datasets.storage.manifest import check_unchanged
from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader
from densecl.errors import DataError
from densecl.network.preprocessing import Preprocessing, build_image_loader
from tests.conftest import WNIDS, draw_set

KINDS = ["tar", "tar.gz", "zip", "stored.zip", "pax.tar", "ustar.tar"]


@pytest.fixture(autouse=True)
def _in_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices lie in the project's folder."""
    monkeypatch.chdir(tmp_path)


def packed(folder: Path, kind: str, top: str = "set") -> Path:
    """The folder as an archive of its kind, with `top` around it."""
    archive = folder.parent / f"{folder.name}.{kind}"
    files = sorted(folder.rglob("*"))
    if kind.endswith("zip"):
        method = zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(archive, "w", method) as bundle:
            for file in files:
                bundle.write(file, f"{top}/{file.relative_to(folder)}")
    else:
        form = {"pax.tar": tarfile.PAX_FORMAT, "ustar.tar": tarfile.USTAR_FORMAT}.get(
            kind, tarfile.GNU_FORMAT
        )
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w", format=form) as bundle:
            for file in files:
                bundle.add(file, f"{top}/{file.relative_to(folder)}", recursive=False)
    return archive


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = draw_set(tmp_path / "folder", 3)
    (root / "README.txt").write_text("licence")
    (root / WNIDS[0] / "._image.JPEG").write_bytes(b"litter")
    odd = "0.01_fox squirrel _ do\u0308g \u72d7 \U0001f415 \u2019(1)\u00a0%20.JPEG"
    shutil.copy(root / WNIDS[1] / "image_0_0.JPEG", root / WNIDS[0] / odd)
    shutil.copy(
        root / WNIDS[1] / "image_0_1.JPEG", root / WNIDS[0] / ("long" * 40 + ".jpg")
    )  # 100 is tar's own limit
    (root / WNIDS[2] / "cut.JPEG").write_bytes(
        (root / WNIDS[2] / "image_0_0.JPEG").read_bytes()[:300]
    )
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_and_its_folder_give_the_same_manifest(folder: Path, kind: str) -> None:
    if kind == "ustar.tar":  # an older form, of short names only
        next(folder.glob("*/long*")).unlink()
    archive = packed(folder, kind)
    check_root(archive, "wnid")
    assert list_classes(archive) == list_classes(folder) == list(WNIDS)
    expected = scan_dataset("s", folder, "wnid", WNIDS, 1)
    pd.testing.assert_frame_equal(scan_dataset("s", archive, "wnid", WNIDS, 1), expected)
    assert expected["problem"].tolist().count("truncated") == 1
    assert all(
        read_file(archive / path) == (folder / path).read_bytes() for path in expected["path"]
    )
    assert all(
        get_file_size(archive / path) == (folder / path).stat().st_size for path in expected["path"]
    )
    assert len(list(paths.ARCHIVES.glob("*.tar"))) == (kind == "tar.gz")
    check_unchanged(expected, archive)


@pytest.mark.parametrize("top", ["", ".", "a/b c", "set"])
def test_top_folders_are_found_and_may_be_named(folder: Path, top: str) -> None:
    archive = packed(folder, "tar", top)
    expected = scan_dataset("s", folder, "wnid", WNIDS, 1)
    for root in (archive, archive / top):
        pd.testing.assert_frame_equal(scan_dataset("s", root, "wnid", WNIDS, 1), expected)
    with pytest.raises(DataError, match="no such folder in the archive"):
        open_image_root(archive / "other")


def test_a_single_class_is_no_top_folder(tmp_path: Path) -> None:
    one = draw_set(tmp_path / "one", 2, folders=WNIDS[:1])
    archive = packed(one, "zip", "")
    assert (
        scan_dataset("s", archive, "wnid", WNIDS, 1)["path"].tolist()
        == scan_dataset("s", one, "wnid", WNIDS, 1)["path"].tolist()
    )


def test_a_stray_image_beside_the_folders_hides_no_class(folder: Path) -> None:
    expected = scan_dataset("s", folder, "wnid", WNIDS, 1)
    shutil.copy(folder / WNIDS[0] / "image_0_0.JPEG", folder / "preview.JPEG")
    archive = packed(folder, "tar", "a/set")
    with tarfile.open(archive, "a") as out:
        for name in ("sheet.png", "a/sheet.png"):
            out.add(folder / "preview.JPEG", name)
    pd.testing.assert_frame_equal(scan_dataset("s", archive, "wnid", WNIDS, 1), expected)


def test_a_class_of_nested_folders_is_no_top_folder(tmp_path: Path) -> None:
    """By the name of the class; of another name it is one."""
    one = draw_set(tmp_path / "one", 4, folders=WNIDS[:1])
    for index, file in enumerate(sorted((one / WNIDS[0]).iterdir())):
        part = one / WNIDS[0] / f"part{index % 2}"
        part.mkdir(exist_ok=True)
        file.rename(part / file.name)
    for root in (one, packed(one, "zip", "")):
        with pytest.raises(DataError, match=f"{WNIDS[0]}: empty class folder.*recursive: true"):
            list_classes(root)
    (one / WNIDS[0]).rename(one / "set")
    for index in range(9):  # flat, with a folder beside: no folder around all images
        shutil.copy(next(one.glob("*/*/*.JPEG")), one / f"{index}.JPEG")
    assert open_archive(packed(one, "tar.gz", "")).top_folder == ""
    for file in one.glob("*.JPEG"):
        file.unlink()
    assert list_classes(packed(one, "tar", "")) == ["part0", "part1"]


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_tar_of_class_tars_is_the_train_set(tmp_path: Path, prefix: str) -> None:
    """ILSVRC2012_img_train.tar: n01440764.tar, ... each flat; `tar -C folder .` writes ./ before."""
    train = draw_set(tmp_path / "train", 3)
    whole = tmp_path / "ILSVRC2012_img_train.tar"
    with tarfile.open(whole, "w") as outer:
        for wnid in reversed(WNIDS):
            with tarfile.open(tmp_path / f"{wnid}.tar", "w") as inner:
                for file in sorted((train / wnid).iterdir()):
                    inner.add(file, prefix + file.name)
            outer.add(tmp_path / f"{wnid}.tar", f"{prefix}{wnid}.tar")
    assert list_classes(whole) == list(WNIDS)
    pd.testing.assert_frame_equal(
        scan_dataset("t", whole, "wnid", WNIDS, 2), scan_dataset("t", train, "wnid", WNIDS, 1)
    )
    assert (
        subprocess.run(["tar", "tf", whole], capture_output=True, check=True).stdout.count(b".tar")
        == 3
    )


def test_litter_in_a_tar_of_class_tars_is_skipped_and_counted(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as tar:
        for name in ("1.jpg", "._1.jpg", "@eaDir/1.jpg", "Thumbs.db"):
            tar.addfile(tarfile.TarInfo(name))
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        members = {f"{WNIDS[0]}.tar": inner.getvalue(), f"._{WNIDS[0]}.tar": b"litter"}
        members |= {f"__MACOSX/{WNIDS[0]}.tar": b"litter", "desktop.ini": b"litter"}
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    listing = list_dataset(tmp_path / "all.tar", "wnid", WNIDS)
    assert listing.images == [(f"{WNIDS[0]}/1.jpg", 0)]
    assert listing.skipped == {"hidden": 2, "system file": 4}


def test_integer_folders_in_a_tar_gz(tmp_path: Path) -> None:
    root = draw_set(tmp_path / "v2", 1, folders=("0", "2", "10"))
    classes = [f"n{number:08d}" for number in range(11)]
    frame = scan_dataset("v2", packed(root, "tar.gz"), "index", classes, 1)
    assert dict(zip(frame["path"].str.partition("/")[0], frame["label"], strict=True)) == {
        "0": 0,
        "2": 2,
        "10": 10,
    }


def test_forked_workers_read_the_same_views_and_pixels(folder: Path) -> None:
    archive = packed(folder, "zip")
    frame = scan_dataset("s", folder, "wnid", WNIDS, 1)
    frame = frame[frame["problem"] == ""].reset_index(drop=True)
    loaders = [
        list(
            create_epoch_loader(
                TwoViewDataset(frame, root, DataParams(), (16, 16), 0), 0, 4, 2, workers
            )
        )
        for root, workers in ((folder, 0), (archive, 2))
    ]
    for a, b in zip(*loaders, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    values = Preprocessing(
        rule="model",
        input_size=(3, 16, 16),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation="bicubic",
        crop_pct=1.0,
        crop_mode="center",
    )
    pixels = [
        torch.cat(
            [batch for batch, _ in build_image_loader([root / p for p in frame["path"]], values, 4)]
        )
        for root in (folder, archive)
    ]
    assert torch.equal(*pixels)


def tar_with(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as bundle:
        for member in members:
            bundle.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 1 if kind == tarfile.REGTYPE else 0
    return info


def refused(archive: Path) -> list[str]:
    with pytest.raises(DataError) as error:
        open_image_root(archive)
    return str(error.value).splitlines()


def test_every_member_that_could_lead_out_is_named(tmp_path: Path) -> None:
    lines = refused(
        tar_with(
            tmp_path / "evil.tar",
            member("n1/good.jpg"),
            member("n1/../../evil.jpg"),
            member("/etc/evil.jpg"),
            member("n1/soft.jpg", tarfile.SYMTYPE, "../../secret"),
            member("n1/hard.jpg", tarfile.LNKTYPE, "n1/good.jpg"),
            member("n1/fifo.jpg", tarfile.FIFOTYPE),
            member("n1/null.jpg", tarfile.CHRTYPE),
            member("a\nb/../c.jpg"),
        )
    )
    told = [
        "n1/../../evil.jpg: a name that leaves the archive",
        "/etc/evil.jpg: an absolute name",
        "n1/soft.jpg: a link to ../../secret",
        "n1/hard.jpg: a link to n1/good.jpg",
        "n1/fifo.jpg: a device or a pipe",
        "n1/null.jpg: a device or a pipe",
        r"a\nb/../c.jpg: a name that leaves the archive",
    ]
    assert len(lines) == len(told)
    assert all(
        line.startswith(f"{tmp_path}/evil.tar: {each}")
        for line, each in zip(lines, told, strict=True)
    )
    assert not list(paths.ARCHIVES.iterdir())
    assert not list(tmp_path.rglob("evil.jpg"))


def test_inner_tars_are_no_way_out(tmp_path: Path) -> None:
    inner = tar_with(
        tmp_path / "n1.tar",
        member("../evil.jpg"),
        member("/evil.jpg"),
        member("a", tarfile.SYMTYPE, "/"),
    )
    with tarfile.open(tmp_path / "outer.tar", "w") as outer:
        outer.add(inner, "n1.tar")
    assert [
        line.partition("outer.tar: ")[2].partition(";")[0]
        for line in refused(tmp_path / "outer.tar")
    ] == [
        "n1/../evil.jpg: a name that leaves the archive",
        "n1//evil.jpg: an absolute name",
        "n1/a: a link to /",
    ]


def test_links_encryption_and_unknown_compression_in_a_zip_are_named(tmp_path: Path) -> None:
    archive = tmp_path / "evil.zip"
    link = zipfile.ZipInfo("n1/link.jpg")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "w") as bundle:
        bundle.writestr(link, "/etc/passwd")
        bundle.writestr("../evil.jpg", b"x")
        bundle.writestr(zipfile.ZipInfo("n1/packed.jpg"), b"x" * 99, zipfile.ZIP_BZIP2)
        bundle.writestr("n1/secret.jpg", b"x")
    content = bytearray(archive.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1  # the last entry says that it is encrypted
    archive.write_bytes(content)
    assert [line.partition("evil.zip: ")[2].partition(";")[0] for line in refused(archive)] == [
        "n1/link.jpg: a link",
        "../evil.jpg: a name that leaves the archive",
        "n1/packed.jpg: compressed by method 12",
        "n1/secret.jpg: encrypted",
    ]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_an_incomplete_download_is_reported(folder: Path, kind: str) -> None:
    archive = packed(folder, kind)
    whole = archive.read_bytes()
    length = len(whole.rstrip(b"\0")) if kind == "tar" else len(whole)
    for cut in np.random.default_rng(0).integers(600, length, 12):
        archive.write_bytes(whole[:cut])
        (line,) = refused(archive)
        assert f"folder.{kind}: damaged or cut archive" in line
    assert not list(paths.ARCHIVES.glob("*.partial"))
    (folder.parent / "text.tar").write_text("404: not found")
    assert "found a file; expected a folder, or a .tar" in refused(folder.parent / "text.tar")[0]


def test_a_damaged_header_in_the_middle_does_not_end_the_listing(folder: Path) -> None:
    """tarfile alone takes it for the end: a set of a few classes, and no error."""
    archive = packed(folder, "tar")
    with tarfile.open(archive) as bundle:
        middle = bundle.getmembers()[9].offset
    content = bytearray(archive.read_bytes())
    content[middle : middle + 100] = bytes(range(100))
    archive.write_bytes(content)
    with tarfile.open(archive) as bundle:
        assert len(bundle.getmembers()) == 9
    assert f"no end marker at byte {middle}" in refused(archive)[0]


def test_damaged_content_of_a_zip_is_a_row_with_its_reason(folder: Path) -> None:
    archive = packed(folder, "stored.zip")
    first = f"{WNIDS[0]}/image_0_0.JPEG"
    content = bytearray(archive.read_bytes())
    content[content.index((folder / first).read_bytes()) + 40] ^= 1
    archive.write_bytes(content)
    frame = scan_dataset("s", archive, "wnid", WNIDS, 1).set_index("path")
    assert frame.loc[first, "problem"] == "cannot be opened: damaged inside its archive"
    assert sorted(frame["problem"].unique()) == [
        "",
        "cannot be opened: damaged inside its archive",
        "truncated",
    ]


def test_a_tar_gz_is_decompressed_once_and_again_only_when_it_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(folder, "tar.gz")
    open_image_root(archive)
    (tar,) = paths.ARCHIVES.glob("*.tar")
    assert tar.read_bytes() == gzip.decompress(archive.read_bytes())
    os.utime(archive, (1, 1))  # touched: hashed again, found under the same name
    with monkeypatch.context() as patch:
        patch.setattr(gzip, "open", None)
        assert open_image_root(archive).list_folders() == list(WNIDS)
    shutil.rmtree(folder / WNIDS[2])
    assert packed(folder, "tar.gz") == archive
    assert open_image_root(archive).list_folders() == list(WNIDS[:2])
    assert len(list(paths.ARCHIVES.glob("*.tar"))) == 2
    monkeypatch.setattr(archives, "GROWTH_ALLOWANCE", 0)
    monkeypatch.setattr(archives, "MAX_GROWTH", 0.1)
    os.utime(archive, (2, 2))
    shutil.rmtree(paths.ARCHIVES)
    assert "unpacks to more than" in refused(archive)[0]


def write_header(info: tarfile.TarInfo, **fields: bytes) -> bytes:
    """A header of a tar with raw fields, and a right checksum."""
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for name, value in fields.items():
        start, length = {"size": (124, 12), "type": (156, 1)}[name]
        header[start : start + length] = value.ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def write_pax(values: dict[str, str], kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A PAX header with values that tarfile itself would not write."""
    create = tarfile.TarInfo._create_pax_generic_header  # type: ignore[attr-defined]
    return bytes(create(values, kind, "utf-8"))


END = bytes(2 * tarfile.BLOCKSIZE)
IMAGE = member("n1/a.jpg")
BODY = b"x".ljust(tarfile.BLOCKSIZE, b"\0")
IMAGE_BLOCKS = write_header(IMAGE) + BODY
LARGE = (1 << 95 | 1 << 40).to_bytes(12, "big")  # base 256
HOSTILE_TARS = {
    "base-256": (write_header(IMAGE, size=LARGE) + BODY, "."),
    "base-256 of 88 bits": (write_header(IMAGE, size=b"\x80" + b"\xff" * 11), "."),
    "negative": (write_header(IMAGE, size=b"\xff" * 10 + b"\xfe\0"), "a member of -512 bytes"),
    "PAX size": (write_pax({"size": str(2**70)}) + IMAGE_BLOCKS, "."),
    "PAX size of text": (write_pax({"size": "-512"}) + IMAGE_BLOCKS, "a member of -512 bytes"),
    "PAX name with NUL": (write_pax({"path": "n1/a\0.jpg"}) + IMAGE_BLOCKS, "a name with a NUL"),
    "long name": (write_pax({"path": "n1/" + "a" * 300}) + IMAGE_BLOCKS, "a name of 302 bytes"),
    "long path": (write_pax({"path": "a/" * 2000 + "a"}) + IMAGE_BLOCKS, "in 2001 parts"),
    "header of a TB": (write_header(IMAGE, size=LARGE, type=b"x"), "a header of 1099511627776"),
    "name of a TB": (write_header(IMAGE, size=LARGE, type=b"L"), "a header of 1099511627776"),
    "negative header": (
        write_header(IMAGE, size=b"\xff" * 10 + b"\xfe\0", type=b"x"),
        "header of -",
    ),
    "chain of headers": (write_pax({"comment": "x"}) * 3000 + IMAGE_BLOCKS, "recursion"),
    "global headers": (
        b"".join(write_pax({f"k{i}": "x"}, tarfile.XGLTYPE) + IMAGE_BLOCKS for i in range(70)),
        "more than 64 values",
    ),
    "sparse": (write_header(IMAGE, type=b"S") + BODY, "a sparse file"),
    "sparse 0.1": (
        write_pax({"GNU.sparse.map": "0,x", "GNU.sparse.size": "1"}) + IMAGE_BLOCKS,
        ".",
    ),
    "sparse 1.0": (
        write_pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}) + IMAGE_BLOCKS,
        ".",
    ),
}


@pytest.mark.parametrize("packing", ["tar", "tar.gz"])
@pytest.mark.parametrize("name", HOSTILE_TARS)
def test_hostile_headers_of_a_tar_are_one_line(tmp_path: Path, name: str, packing: str) -> None:
    blocks, reason = HOSTILE_TARS[name]
    archive, content = tmp_path / f"hostile.{packing}", blocks + END
    archive.write_bytes(gzip.compress(content) if packing == "tar.gz" else content)
    (line,) = refused(archive)
    assert reason in line
    assert not list(paths.ARCHIVES.iterdir())


def write_zip(path: Path, name: str = "n1/a.jpg", size: int = 1) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr(name, bytes(size))
    return path


def test_a_zip_that_grows_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_zip(tmp_path / "bomb.zip", size=2**20)
    assert open_image_root(archive).list_folders() == ["n1"]
    monkeypatch.setattr(archive_members, "MAX_IMAGE", 2**20 - 1)
    archive = write_zip(tmp_path / "bomb2.zip", size=2**20)
    assert "n1/a.jpg: an image of 1048576 bytes, above 1048575" in refused(archive)[0]
    monkeypatch.setattr(archive_members, "GROWTH_ALLOWANCE", 2**19)
    assert "it unpacks to more than" in refused(archive)[0]


@pytest.mark.parametrize("field", ["size", "stored", "offset"])
def test_sizes_of_64_bits_in_a_zip_are_one_line(tmp_path: Path, field: str) -> None:
    content = bytearray(write_zip(tmp_path / "a.zip").read_bytes())
    entry = content.index(b"PK\x01\x02")
    place = {"size": 24, "stored": 20, "offset": 42}[field]
    name_length = int.from_bytes(content[entry + 28 : entry + 30], "little")
    content[entry + place : entry + place + 4] = b"\xff" * 4  # the value is in an extra field
    content[entry + 30 : entry + 32] = (12).to_bytes(2, "little")
    extra = b"\x01\0\x08\0" + (2**64 - 2).to_bytes(8, "little")
    start = entry + 46 + name_length
    content[start:start] = extra
    end = content.index(b"PK\x05\x06")
    directory = int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)
    content[end + 12 : end + 16] = directory.to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(content)
    assert "a.zip: " in refused(tmp_path / "a.zip")[0]
    assert not list(paths.ARCHIVES.iterdir())


def test_a_name_that_ends_at_a_nul_in_a_zip_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", "n1/a.jpg_b.jpg")
    archive.write_bytes(archive.read_bytes().replace(b"a.jpg_b", b"a.jpg\0b"))
    assert "n1/a.jpg\\x00b.jpg: a name with a NUL" in refused(archive)[0]


@pytest.mark.parametrize("kind", ["tar", "pax.tar", "zip"])
def test_random_damage_is_an_error_or_an_index(folder: Path, kind: str) -> None:
    archive, rng = packed(folder, kind), np.random.default_rng(1)
    whole = np.frombuffer(archive.read_bytes(), np.uint8)
    for _ in range(60):
        content = whole.copy()
        places = rng.integers(0, len(content), 200)
        content[places] = rng.integers(0, 256, 200)
        archive.write_bytes(content.tobytes())
        with contextlib.suppress(DataError):
            open_image_root(archive)
    assert not list(paths.ARCHIVES.glob("*.partial"))


def test_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"n1/\\udcff\.jpg: the name holds bytes that are not UTF-8"
    ):
        open_image_root(tar_with(tmp_path / "latin.tar", member("n1/\udcff.jpg"))).read_folder("n1")


def test_a_missing_member_is_no_such_file(folder: Path) -> None:
    archive = packed(folder, "zip")
    with pytest.raises(FileNotFoundError):
        read_file(archive / WNIDS[0] / "none.jpg")
    with pytest.raises(FileNotFoundError):
        read_file(folder / "none" / "x.jpg")


def test_a_zip_of_images_is_readable_as_pillow_reads_it(folder: Path) -> None:
    archive = packed(folder, "zip")
    path = f"{WNIDS[0]}/image_0_0.JPEG"
    assert np.array_equal(
        np.asarray(Image.open(io.BytesIO(read_file(archive / path)))),
        np.asarray(Image.open(folder / path)),
    )


def test_one_long_name_among_many_is_refused_before_the_index_is_made(tmp_path, monkeypatch):
    """Each name of an index takes the length of the longest."""
    monkeypatch.setattr(archives, "MAX_PADDED", 2**16)
    for long, is_refused in (("a/" * 25 + "a", False), ("a" * 250 + "/" + "a" * 250, True)):
        archive = tmp_path / f"{len(long)}.tar"
        with tarfile.open(archive, "w") as tar:
            for name in (*(f"n1/image_number_{k:06d}" for k in range(1500)), long):
                tar.addfile(tarfile.TarInfo(f"{name}.jpg"))
        if is_refused:
            (line,) = refused(archive)
            assert "found a name of 505 bytes among 1,501 members" in line
        else:
            assert len(open_archive(archive).list_names()) >= 1501
