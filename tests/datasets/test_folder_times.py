"""Changes of large datasets are found by the times of their folders, not by a stat per image."""

import os
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from densecl import paths
from densecl.datasets.storage import folder_times
from densecl.datasets.storage.folder_times import check_folders, list_folders
from densecl.errors import DataError

NAMES = ("a/1.jpg", "a/2.jpg", "b/c/3.jpg", "4.jpg")


def set_clock(monkeypatch, now: int) -> None:
    monkeypatch.setattr(folder_times, "time", SimpleNamespace(time_ns=lambda: now))


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A dataset of four files that is large for the check, and its manifest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folder_times, "MAX_STATS", 3)
    set_clock(monkeypatch, time.time_ns() + 3600 * 10**9)  # all that is written now has settled
    for number, name in enumerate(NAMES):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * (number + 1))
    for folder in ("set", "set/a", "set/b", "set/b/c"):
        os.utime(tmp_path / folder, (1, 1))
    Path("manifest.parquet").write_bytes(b"first")
    return tmp_path / "set"


@pytest.fixture
def compared(monkeypatch) -> list[list[str]]:
    """Paths that each check has compared file by file."""
    seen, compare = [], folder_times.check_unchanged
    monkeypatch.setattr(
        folder_times,
        "check_unchanged",
        lambda frame, root: (seen.append(frame["path"].tolist()), compare(frame, root)),
    )
    return seen


def check(root: Path) -> None:
    frame = pd.DataFrame({"path": NAMES, "bytes": range(1, 5)})
    check_folders(frame, root, Path("manifest.parquet"))


def test_only_files_of_changed_folders_are_compared_again(place, compared):
    check(place)
    check(place)
    assert compared == [list(NAMES)]
    (place / "b/c/new").touch()
    os.utime(place / "b/c", (2, 2))
    check(place)
    check(place)
    assert compared[1:] == [["b/c/3.jpg"]]
    (place / "a/2.jpg").unlink()
    for _ in range(2):  # what failed is not recorded
        with pytest.raises(DataError, match=r"a/2.jpg: found no such file or directory"):
            check(place)


def test_a_replaced_file_is_found_and_a_young_folder_is_compared_each_time(
    place, compared, monkeypatch
):
    check(place)
    time.sleep(0.05)
    (place / "new").write_bytes(b"longer than before")
    (place / "new").rename(place / "a/1.jpg")
    with pytest.raises(DataError, match=r"a/1.jpg: found 18 bytes, expected 1 bytes"):
        check(place)
    (place / "a/1.jpg").write_bytes(b"x")
    set_clock(monkeypatch, (place / "a").stat().st_ctime_ns + 1_990_000_000)
    check(place)
    check(place)  # `a` changed less than SETTLED seconds ago
    assert compared[-1] == ["a/1.jpg", "a/2.jpg", "4.jpg"]


def test_a_replaced_file_is_found_where_the_mtime_of_its_folder_is_restored(place):
    """As `rsync -a`, `cp -a` and `tar -x` leave it."""
    check(place)
    time.sleep(0.05)  # clocks are coarse
    before = (place / "a").stat()
    (place / "new").write_bytes(b"longer than before")
    (place / "new").rename(place / "a/1.jpg")
    os.utime(place / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"a/1.jpg: found 18 bytes, expected 1 bytes"):
        check(place)


def test_another_manifest_or_root_and_a_damaged_record_are_compared_whole(place, compared):
    check(place)
    Path("manifest.parquet").write_bytes(b"second")
    check(place)
    place.rename(place.with_name("moved"))
    check(place.with_name("moved"))
    for record in paths.CHECKED_FOLDERS.iterdir():
        record.write_text("[")
    check(place.with_name("moved"))
    assert compared == [list(NAMES)] * 4
    paths.CHECKED_FOLDERS.joinpath("x").mkdir()
    missing = place.with_name("none")
    with pytest.raises(DataError, match=r"none/a/1.jpg: found no such file or directory"):
        check(missing)


def test_members_of_an_archive_go_by_the_archive(place, compared):
    archive = place.with_name("set.tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(place, ".")
    os.utime(archive, (1, 1))
    check(archive)
    check(archive)
    assert compared == [list(NAMES)]
    os.utime(archive, (2, 2))
    check(archive)
    assert compared == [list(NAMES)] * 2


def test_small_datasets_are_compared_file_by_file_and_leave_no_record(place, monkeypatch):
    monkeypatch.setattr(folder_times, "MAX_STATS", 4)
    check(place)
    (place / "a/1.jpg").write_bytes(b"in place")
    os.utime(place / "a", (1, 1))
    with pytest.raises(DataError, match=r"a/1.jpg: found 8 bytes"):
        check(place)
    assert not paths.CHECKED_FOLDERS.exists()


def test_the_folder_of_a_path():
    column = pd.Series(["4.jpg", "a/1.jpg", "a/b c/ü.jpg", "/x"])
    assert list_folders(column).to_pylist() == ["", "a", "a/b c", ""]
