"""Links to files and folders are followed, hashed and counted; what may not be followed is refused
by `plan`.
"""

import os
from collections import Counter
from pathlib import Path

import pytest

from densecl.config.params import DatasetParams
from densecl.datasets.manifests.layouts.sources import check_source, list_source
from densecl.datasets.manifests.scan import scan_dataset
from densecl.errors import DataError
from densecl.predict.images import list_images
from tests.conftest import WNIDS, draw_set
from tests.datasets.test_skipped_files import write

A, B = WNIDS[:2]


def source(root: Path, **values: object) -> DatasetParams:
    return DatasetParams(root=str(root), tracked_by=str(root), **values)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Files named by hash, without extensions, as in DVC's cache."""
    return write(tmp_path / "cache", ["ab/cdef", "01/2345"])


def test_a_farm_of_links_has_the_manifest_of_its_files(tmp_path: Path) -> None:
    real = draw_set(tmp_path / "real", 2)
    farm = tmp_path / "farm"
    (farm / A).mkdir(parents=True)
    for file in (real / A).iterdir():
        (farm / A / file.name).symlink_to(file)
    for wnid in WNIDS[1:]:  # a subset made of links to class folders
        (farm / wnid).symlink_to(real / wnid)
    expected = scan_dataset("s", real, "wnid", WNIDS, 1)
    assert scan_dataset("s", farm, "wnid", WNIDS, 1).equals(expected)


def test_links_into_a_cache_are_images_by_their_own_name(tmp_path: Path, cache: Path) -> None:
    root = write(tmp_path / "set", [f"{A}/1.jpg"])
    (root / A / "2.jpg").symlink_to(cache / "ab/cdef")
    (root / A / "3.txt").symlink_to(cache / "01/2345")
    listing = list_source(source(root), [A])
    assert [path for path, _ in listing.images] == [f"{A}/1.jpg", f"{A}/2.jpg"]
    assert listing.skipped == {"extension .txt": 1}


def test_sets_that_are_not_trusted_follow_links_inside_only(tmp_path: Path, cache: Path) -> None:
    root = write(tmp_path / "set", [f"{A}/1.jpg", f"{B}/1.jpg"])
    (root / A / "2.jpg").symlink_to(root / B / "1.jpg")
    untrusted = source(root, follow_links="inside")
    assert check_source(untrusted) == (3, 2, Counter())
    for name, target in (("9.jpg", cache / "ab/cdef"), ("9", cache), ("9.txt", cache / "01/2345")):
        link = root / B / name
        link.symlink_to(target)
        assert check_source(source(root)).classes == 2
        with pytest.raises(DataError, match=rf"{name}: link that leaves .*, to .*cache"):
            check_source(untrusted)
        link.unlink()
    (root / WNIDS[2]).symlink_to(cache)
    with pytest.raises(DataError, match=f"{WNIDS[2]}: link that leaves .*"):
        check_source(untrusted)


def test_a_link_that_leaves_a_folder_is_not_predicted(tmp_path: Path, cache: Path) -> None:
    root = write(tmp_path / "set", ["1.jpg", "below/2.jpg"])
    (root / "3.jpg").symlink_to(root / "below/2.jpg")
    assert [name for name, _ in list_images(root)] == ["1.jpg", "3.jpg", "below/2.jpg"]
    for place, target in (("4.jpg", cache / "ab/cdef"), ("below/5", cache)):
        (root / place).symlink_to(target)
        with pytest.raises(DataError, match=rf"{place}: link that leaves .*, to .*cache"):
            list_images(root)
        (root / place).unlink()


@pytest.mark.parametrize("recursive", [False, True])
def test_loops_devices_and_links_to_nothing_are_refused_before_prepare(
    tmp_path: Path, recursive: bool
) -> None:
    root = write(tmp_path / "set", [f"{A}/1.jpg", f"{B}/1.jpg"])
    settings = source(root, recursive=recursive)
    odd = root / A / "odd"
    for target, message in (
        (odd, "link to nothing or to itself"),
        (tmp_path / "gone", "link to nothing or to itself"),
        (root, "link that loops"),
        (root / A, "link that loops"),
        (tmp_path, "link that loops"),
        ("/dev/null", "found a folder or a device"),
    ):
        odd.symlink_to(target)
        with pytest.raises(DataError, match=f"odd: {message}"):
            check_source(settings)
        odd.unlink()
    os.mkfifo(odd)
    with pytest.raises(DataError, match="odd: found a folder or a device"):
        check_source(settings)


def test_a_loop_through_two_folders_ends(tmp_path: Path) -> None:
    root = write(tmp_path / "set", [f"{A}/1.jpg", f"{B}/1.jpg"])
    (root / A / "to-b").symlink_to(root / B)
    assert check_source(source(root)).skipped == {"in subfolders": 1}
    assert check_source(source(root, recursive=True)).images == 3
    (root / B / "to-a").symlink_to(root / A)
    with pytest.raises(DataError, match="link that loops"):
        check_source(source(root, recursive=True))
