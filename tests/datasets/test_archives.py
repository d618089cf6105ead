"""An archive, read in place, is the folder that it unpacks to; what could lead out of it is refused
by name.
"""

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

from densecl.config.params import DataParams
from densecl.datasets.manifests.listing import check_root, list_classes
from densecl.datasets.manifests.scan import scan_dataset
from densecl.datasets.storage import archives
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
    assert len(list(archives.ARCHIVES.glob("*.tar"))) == (kind == "tar.gz")
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


def test_a_tar_of_class_tars_is_the_train_set(tmp_path: Path) -> None:
    """ILSVRC2012_img_train.tar: n01440764.tar, ... each flat."""
    train = draw_set(tmp_path / "train", 3)
    whole = tmp_path / "ILSVRC2012_img_train.tar"
    with tarfile.open(whole, "w") as outer:
        for wnid in reversed(WNIDS):
            with tarfile.open(tmp_path / f"{wnid}.tar", "w") as inner:
                for file in sorted((train / wnid).iterdir()):
                    inner.add(file, file.name)
            outer.add(tmp_path / f"{wnid}.tar", f"{wnid}.tar")
    assert list_classes(whole) == list(WNIDS)
    pd.testing.assert_frame_equal(
        scan_dataset("t", whole, "wnid", WNIDS, 2), scan_dataset("t", train, "wnid", WNIDS, 1)
    )
    assert (
        subprocess.run(["tar", "tf", whole], capture_output=True, check=True).stdout.count(b".tar")
        == 3
    )


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
    assert not list(archives.ARCHIVES.iterdir())
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
    assert not list(archives.ARCHIVES.glob("*.partial"))
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
    (tar,) = archives.ARCHIVES.glob("*.tar")
    assert tar.read_bytes() == gzip.decompress(archive.read_bytes())
    os.utime(archive, (1, 1))  # touched: hashed again, found under the same name
    with monkeypatch.context() as patch:
        patch.setattr(gzip, "open", None)
        assert open_image_root(archive).list_folders() == list(WNIDS)
    shutil.rmtree(folder / WNIDS[2])
    assert packed(folder, "tar.gz") == archive
    assert open_image_root(archive).list_folders() == list(WNIDS[:2])
    assert len(list(archives.ARCHIVES.glob("*.tar"))) == 2
    monkeypatch.setattr(archives, "GROWTH_ALLOWANCE", 0)
    monkeypatch.setattr(archives, "MAX_GROWTH", 0.1)
    os.utime(archive, (2, 2))
    shutil.rmtree(archives.ARCHIVES)
    assert "unpacks to more than" in refused(archive)[0]


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
