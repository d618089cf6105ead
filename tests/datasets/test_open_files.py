"""Archives are opened when they are read, each once, and no more than a process may hold open."""

import os
import resource
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densecl.datasets.storage import archives, image_root, open_files
from densecl.datasets.storage.image_places import ArchiveImages, locate_images
from densecl.datasets.storage.image_root import read_file
from densecl.datasets.storage.open_files import OpenFiles, count_descriptors, identify_file

SHARDS, IMAGES = 40, 5


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.Series:
    """Paths of images in tars below `root`, in an order that changes the tar at every image."""
    monkeypatch.chdir(tmp_path)
    paths = list[str]()
    for shard in range(SHARDS):
        for image in range(IMAGES):
            name = Path("images", str(shard), f"{image}.jpg")
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_bytes(f"{shard} {image} ".encode() * (1 + shard * image))
        Path("root").mkdir(exist_ok=True)
        with tarfile.open(f"root/{shard:03d}.tar", "w") as tar:
            for image in range(IMAGES):
                tar.add(f"images/{shard}/{image}.jpg", f"{image}.jpg")
                paths.append(f"{shard:03d}.tar/{image}.jpg")
    return pd.Series(paths).iloc[np.random.default_rng(0).permutation(len(paths))]


def expect(path: str) -> bytes:
    shard, image = path.split("/")
    return Path("images", str(int(shard[:3])), image).read_bytes()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every path that `os.open` is given by the code that reads archives."""
    seen, real = list[str](), os.open
    monkeypatch.setattr(
        open_files.os, "open", lambda path, flags: (seen.append(str(path)), real(path, flags))[1]
    )
    return seen


def use_files(monkeypatch: pytest.MonkeyPatch, limit: int | None) -> OpenFiles:
    files = OpenFiles(limit)
    monkeypatch.setattr(archives, "OPEN_FILES", files)
    return files


def test_each_shard_is_opened_once(shards, opened, monkeypatch):
    use_files(monkeypatch, None)
    images = locate_images(Path("root"), shards)
    assert isinstance(images, ArchiveImages)
    opened.clear()
    for _ in range(3):
        assert [read_file(image) for image in images] == [expect(path) for path in shards]
    assert sorted(opened) == [f"root/{shard:03d}.tar" for shard in range(SHARDS)]


def test_reading_by_path_opens_each_shard_once_too(shards, opened, monkeypatch):
    use_files(monkeypatch, None)
    for _ in range(2):
        assert [read_file(Path("root", path)) for path in shards] == [expect(p) for p in shards]
    assert len([path for path in opened if path.endswith(".tar")]) == SHARDS


def test_fewer_descriptors_than_shards_are_enough(shards, monkeypatch):
    files = use_files(monkeypatch, 7)
    images = locate_images(Path("root"), shards)
    for image, path in zip(images, shards, strict=True):
        assert read_file(image) == expect(path)
        assert len(files.files) <= 7


def test_half_of_the_descriptors_of_a_process_are_used():
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
        assert count_descriptors() == 150
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert count_descriptors() == min(open_files.MAX_OPEN, limits[0] // 2)


def test_a_removed_file_is_let_go_when_another_is_opened(tmp_path):
    files = OpenFiles(5)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    identities = {name: identify_file(tmp_path / name) for name in ("a", "b", "c")}
    files.read(identities["a"], 1, 0)
    files.read(identities["b"], 1, 0)
    (tmp_path / "a").unlink()
    assert files.read(identities["a"], 1, 0) == b"a"  # who has it open reads on
    files.read(identities["c"], 1, 0)
    assert set(files.files) == {identities["b"], identities["c"]}


def test_opening_does_not_look_at_every_open_file(tmp_path, monkeypatch):
    looks, real = [0], open_files.OpenFile.is_removed

    def look(file: open_files.OpenFile) -> bool:
        looks[0] += 1
        return real(file)

    monkeypatch.setattr(open_files.OpenFile, "is_removed", look)
    files, identities = OpenFiles(40), []
    for number in range(200):
        path = tmp_path / str(number)
        path.write_bytes(b"x")
        identities.append(identify_file(path))
        files.read(identities[-1], 1, 0)
    assert list(files.files) == identities[-40:]
    assert looks[0] <= 200 * open_files.REMOVED_SHARE


def test_a_shard_that_is_replaced_is_refused(shards):
    images = locate_images(Path("root"), shards)
    (row,) = np.flatnonzero(shards == "003.tar/2.jpg")
    with tarfile.open("root/003.tar", "w") as tar:
        tar.add("images/0/0.jpg", "2.jpg")
    with pytest.raises(OSError, match=r"changed since it was listed: 'root/003\.tar'"):
        read_file(images[int(row)])


@pytest.mark.parametrize("root", ["all.tar", "all.tar/top", "all.tar/top/x"])
def test_images_of_an_archive_around_the_root_are_found(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("x").mkdir()
    for name in ("1.jpg", "2.jpg"):
        Path("x", name).write_bytes(name.encode() * 100)
    with tarfile.open("all.tar", "w") as tar:
        tar.add("x", "top/x")
    names = ["1.jpg", "2.jpg"] if root.endswith("x") else ["x/1.jpg", "x/2.jpg"]
    images = locate_images(Path(root), pd.Series(names))
    assert isinstance(images, ArchiveImages)
    assert [read_file(image) for image in images] == [name[-5:].encode() * 100 for name in names]
    assert str(images[1]) == "all.tar/top/x/2.jpg"
    with pytest.raises(FileNotFoundError, match="no such member"):
        locate_images(Path(root), pd.Series([names[0], "x/3.jpg"]))


def test_an_image_that_ends_after_its_shard_is_damaged(shards):
    images = locate_images(Path("root"), shards)
    place = images[0]
    assert isinstance(place, image_root.StoredImage)
    with pytest.raises(OSError, match="damaged inside its archive"):
        read_file(place._replace(offset=place.offset + 10**9))
