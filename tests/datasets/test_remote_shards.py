"""Shards of a store are fetched once per machine, checked, and read like those of a folder."""

import json
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem

from densecl import paths
from densecl.config.params import DataParams, DatasetParams
from densecl.datasets.manifests.layouts import shard_listings, webdataset
from densecl.datasets.manifests.layouts.sources import check_source, list_source, list_train_classes
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.pack import pack_images
from densecl.datasets.storage import cache_room, remote_root, shard_cache
from densecl.datasets.storage.cache_room import CacheFullError
from densecl.datasets.storage.image_places import ArchiveImages, locate_images
from densecl.datasets.storage.image_root import read_file
from densecl.datasets.storage.remote_root import locate_root, update_index
from densecl.datasets.storage.remote_store import RemoteStore, expand_braces
from densecl.datasets.storage.shard_cache import fetch_ahead, stage_shards
from densecl.datasets.storage.shard_index import parse_index
from densecl.datasets.storage.usable_images import ImageSet
from densecl.datasets.views.shard_blocks import draw_block_order, draw_epoch_order
from densecl.datasets.views.two_views import TwoViewDataset, create_epoch_loader
from densecl.errors import DataError
from densecl.training.train import hash_images
from tests.conftest import WNIDS, draw_set

SHARD = 20480  # bytes of each tar here


class Packed(NamedTuple):
    frame: pd.DataFrame  # of the folders
    folder: Path  # of the shards
    source: DatasetParams


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    place = tmp_path_factory.mktemp("packed")
    root = draw_set(place / "train", 8)
    settings = DatasetParams(root=str(root), tracked_by=str(root))
    frame = scan_listing("imagenet-train", root, list_source(settings, WNIDS), WNIDS, 1).frame
    (place / "shards").mkdir()
    pack_images("imagenet-train", frame, WNIDS, root, place / "shards", 4000)
    return place, frame


@pytest.fixture
def packed(packed_once, tmp_path, monkeypatch) -> Packed:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(cache_room.SIZE_ENV, raising=False)
    monkeypatch.delenv(cache_room.FOLDER_ENV, raising=False)
    shutil.copytree(packed_once[0], "there")
    folder = Path("there/shards").absolute()
    source = DatasetParams(root=f"file://{folder}", tracked_by="i.json", layout="webdataset")
    return Packed(packed_once[1], folder, source)


@pytest.fixture
def copies(monkeypatch) -> list[str]:
    """Names of the files that are copied from the store."""
    seen, copy = list[str](), shard_cache.copy_remote
    monkeypatch.setattr(
        shard_cache, "copy_remote", lambda *args: (seen.append(args[1]), copy(*args))[1]
    )
    return seen


def scan(source: DatasetParams) -> pd.DataFrame:
    listing = list_source(source, WNIDS)
    return scan_listing("imagenet-train", locate_root(source), listing, WNIDS, 1).frame


def list_content() -> list[str]:
    return sorted(path.name for path in Path("cache/shards/content").iterdir() if not path.suffix)


def list_shards(source: DatasetParams) -> list[Path]:
    return sorted(locate_root(source).glob("*.tar"))


def limit_cache(monkeypatch, shards: float) -> None:
    monkeypatch.setenv(cache_room.SIZE_ENV, str(shards * SHARD / 1e9))


def test_the_manifest_is_that_of_the_folders(packed, copies):
    update_index(packed.source)
    assert list_train_classes(packed.source) == sorted(WNIDS)
    found = scan(packed.source)
    pd.testing.assert_frame_equal(found.drop(columns="path"), packed.frame.drop(columns="path"))
    content = [read_file(locate_root(packed.source) / path) for path in found["path"]]
    assert content == [
        (packed.folder.parent / "train" / p).read_bytes() for p in packed.frame["path"]
    ]
    assert sorted(copies) == [path.name for path in list_shards(packed.source)]  # each once


def test_what_is_left_out_is_counted_as_in_a_folder(packed):
    for name in (".DS_Store", "Thumbs.db", "notes.md"):
        (packed.folder / name).touch()
    update_index(packed.source)
    local = packed.source.model_copy(update={"root": str(packed.folder)})
    found, expected = (dict(list_source(s, WNIDS).skipped) for s in (packed.source, local))
    assert {"hidden": 1, "system file": 1, "extension .md": 1}.items() <= found.items()
    assert expected.pop("extension .json") == 1 + found.pop("extension .json", 0)  # the index
    assert found == expected


def test_the_index_of_pack_is_used_without_a_look_at_the_shards(packed, copies):
    index = update_index(packed.source)
    written = json.loads((packed.folder / "index.json").read_text())["shards"]
    assert [shard.model_dump() for shard in index.shards] == written
    assert copies == []
    assert json.loads(Path("i.json").read_text())["shards"] == written


def test_without_it_plan_reads_every_shard_once_and_keeps_it(packed, copies):
    packed_index = update_index(packed.source)
    Path("i.json").unlink()
    (packed.folder / "index.json").unlink()
    index = update_index(packed.source)
    assert [s.sha256 for s in index.shards] == [s.sha256 for s in packed_index.shards]
    stage_shards(list_shards(packed.source))
    assert copies == []  # what was hashed is in the cache
    assert len(list_content()) == len(index.all_files)


@pytest.mark.parametrize(
    ("root", "names", "match"),
    [
        ("/imagenet-train-{00000..00001}.tar", [], r"found no such file, expected .* i\.json"),
        ("", ["new.tar", "later.txt"], r"found later\.txt and 1 others, expected only the "),
        ("/../other", [], r"found the index of .*/there/shards in i\.json, expected that of .*er;"),
    ],
)
def test_an_index_is_not_used_for_another_root(packed, root, names, match):
    update_index(packed.source)
    written = Path("i.json").read_bytes()
    shutil.copytree(packed.folder, packed.folder.parent / "other")  # equal names and sizes
    for name in names:
        (packed.folder / name).write_bytes(b"x")
    source = packed.source.model_copy(update={"root": packed.source.root + root})
    with pytest.raises(DataError, match=match) as caught:
        update_index(source)
    assert re.search(r"; .*remove i\.json, and `python -m steps plan` writes it", str(caught.value))
    assert "\n" not in str(caught.value)
    assert Path("i.json").read_bytes() == written
    Path("i.json").unlink()
    assert len(update_index(source).all_files) == len(RemoteStore(source.root).list_files()) - (
        not root.endswith(".tar")  # index.json
    )


def test_a_shard_that_was_cut_after_pack_is_not_indexed(packed):
    shard = packed.folder / "imagenet-train-00002.tar"
    shard.write_bytes(shard.read_bytes()[:1024])
    with pytest.raises(
        DataError, match=r"00002\.tar: found 1,024 bytes, .* as in index\.json besi"
    ):
        update_index(packed.source)
    assert not Path("i.json").exists()


def test_an_index_copied_by_hand_is_completed(packed, copies):
    expected = update_index(packed.source)
    shutil.copy(packed.folder / "index.json", "i.json")
    (packed.folder / "index.json").unlink()
    assert update_index(packed.source) == expected
    assert copies == []
    shutil.copytree("there/shards", "there/more")
    shutil.copy("there/more/imagenet-train-00000.tar", "there/more/x.tar")
    Path("i.json").write_text(expected.model_copy(update={"base": ""}).model_dump_json())
    with pytest.raises(DataError, match=r"found x\.tar, expected only the"):
        update_index(
            packed.source.model_copy(update={"root": f"file://{Path('there/more').absolute()}"})
        )


@pytest.mark.parametrize(
    "change", ["other size", "same size", "gone", "gone later", "damaged index", "no index"]
)
def test_a_change_is_one_line_that_says_what_to_do(packed, change):
    shard = packed.folder / "imagenet-train-00002.tar"
    update_index(packed.source)
    if change == "damaged index":
        Path("i.json").write_text('{"shards": [{"name": "../x", "bytes": 1, "sha256": "0"}]}')
    elif change == "no index":
        Path("i.json").unlink()
    elif change.startswith("gone"):
        shard.unlink()
    else:
        content = bytearray(shard.read_bytes()) + b"\0" * (change == "other size")
        content[600] ^= 1
        shard.write_bytes(content)
    matches = {
        "other size": r"tar: found 20,481 bytes, expected 20,480 bytes as in i\.json",
        "same size": r"00002\.tar: found SHA-256 \w{12}\.\.\., expected \w{12}\.\.\. of i\.json",
        "gone": r"00002\.tar: found no such file, expected 20,480 bytes as in i\.json",
        "gone later": r"found no imagenet-train-00002\.tar, expected it as in the index",
        "damaged index": r"i\.json: shards\.0\.name: .*expected a path below the root; expected",
        "no index": r"i\.json: no index of file://.*`python -m steps plan` writes it",
    }
    at_plan = change in ("other size", "gone")
    with pytest.raises(DataError, match=matches[change]) as caught:
        update_index(packed.source) if at_plan else stage_shards(list_shards(packed.source))
    assert "\n" not in str(caught.value)
    assert not list(Path("cache/shards").rglob("*.partial"))


def test_a_shard_that_is_no_tar_is_one_line(packed):
    (packed.folder / "imagenet-train-00001.tar").write_bytes(b"x" * 3000)
    (packed.folder / "index.json").unlink()
    update_index(packed.source)
    with pytest.raises(DataError, match=r"00001\.tar: damaged or cut archive") as caught:
        list_source(packed.source, WNIDS)
    assert "\n" not in str(caught.value)


def test_a_cache_that_is_too_small_is_refused_before_anything_is_fetched(
    packed, copies, monkeypatch
):
    count = len(update_index(packed.source).shards)
    limit_cache(monkeypatch, count - 0.5)
    with pytest.raises(CacheFullError, match=r"found room for .* GB of shards, expected"):
        stage_shards(list_shards(packed.source))
    assert copies == []
    limit_cache(monkeypatch, count)
    stage_shards(list_shards(packed.source))
    assert len(copies) == count
    monkeypatch.setenv(cache_room.SIZE_ENV, "lots")
    with pytest.raises(DataError, match=r"DENSECL_SHARD_CACHE_GB: found 'lots', expected a number"):
        cache_room.get_limit()


def test_a_small_cache_gives_the_same_manifest(packed, monkeypatch):
    update_index(packed.source)
    limit_cache(monkeypatch, 1.5)
    found = scan(packed.source)
    pd.testing.assert_frame_equal(found.drop(columns="path"), packed.frame.drop(columns="path"))
    assert len(list_content()) <= 2  # a shard, and _info.json


def test_what_was_used_longest_ago_makes_room(packed, monkeypatch):
    update_index(packed.source)
    shards = list_shards(packed.source)
    limit_cache(monkeypatch, 3.2)
    for shard in (*shards[:3], shards[0]):
        stage_shards([shard])
    stage_shards([shards[3]])
    assert [path.exists() for path in shards[:4]] == [True, False, True, True]


def test_processes_share_what_they_fetch(packed, copies):
    update_index(packed.source)
    shards = list_shards(packed.source)
    threads = [threading.Thread(target=stage_shards, args=(shards,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(copies) == [path.name for path in shards]
    assert list(fetch_ahead(shards)) == shards


def test_fetching_may_be_given_up_by_a_thread_that_fetches(monkeypatch):
    """As where the garbage collector runs in it, after an error of who reads the shards."""
    closed, given_up = threading.Event(), threading.Event()
    errors: list[Exception] = []

    def fetch(shard: Path) -> bool:
        if shard.name == "1":
            closed.wait(30)
            try:
                fetched.close()
            except Exception as error:
                errors.append(error)
            given_up.set()
        return True

    monkeypatch.setattr(shard_cache, "stage_missing", fetch)
    fetched = fetch_ahead([Path(str(number)) for number in range(9)])
    assert next(fetched) == Path("0")
    closed.set()
    assert given_up.wait(30)
    assert errors == []


def test_a_shard_that_another_process_lists_meanwhile_keeps_its_own_images(packed, monkeypatch):
    update_index(packed.source)
    expected = list_train_classes(packed.source), scan(packed.source)
    listings = {p: p.read_bytes() for p in paths.LISTINGS.iterdir()}
    other = shard_listings.locate_listing(list_shards(packed.source)[1])
    shutil.rmtree("cache")
    read = webdataset.read_tar

    def read_beside_another(shard):
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(listings[other])
        return read(shard)

    monkeypatch.setattr(webdataset, "read_tar", read_beside_another)
    assert list_train_classes(packed.source) == expected[0]
    assert {p: p.read_bytes() for p in listings} == listings
    pd.testing.assert_frame_equal(scan(packed.source), expected[1])


def test_what_a_killed_process_left_is_no_obstacle(packed, monkeypatch):
    update_index(packed.source)
    shards = list_shards(packed.source)
    stage_shards(shards[:1])
    Path("cache/shards/content", "0" * 64).with_suffix(".partial").write_bytes(b"x" * SHARD)
    limit_cache(monkeypatch, 2)
    stage_shards(shards[:2])
    assert not list(Path("cache/shards").rglob("*.partial"))


def test_what_a_killed_process_left_of_the_same_shard_takes_no_room(packed, monkeypatch):
    shard = update_index(packed.source).shards[0]
    partial = Path("cache/shards/content", shard.sha256).with_suffix(".partial")
    partial.write_bytes(b"x" * SHARD)
    limit_cache(monkeypatch, 1)
    stage_shards(list_shards(packed.source)[:1])
    assert list_content() == [shard.sha256]  # _info.json made room


def test_what_plan_reads_is_counted_and_locked_meanwhile(packed, monkeypatch):
    (packed.folder / "index.json").unlink()
    copy, names = remote_root.copy_remote, list[str]()

    def copy_and_look(store: RemoteStore, name: str, target: Path) -> str:
        digest = copy(store, name, target)
        assert cache_room.count_bytes() >= (packed.folder / name).stat().st_size
        with pytest.raises(Timeout), FileLock(target.with_suffix(".lock"), timeout=0):
            pass
        names.append(name)
        return digest

    monkeypatch.setattr(remote_root, "copy_remote", copy_and_look)
    limit_cache(monkeypatch, 2.5)
    index = update_index(packed.source)
    assert names == sorted(file.name for file in index.all_files)
    assert not list(Path("cache/shards").rglob("*.partial"))
    assert cache_room.count_bytes() <= 2.5 * SHARD


def test_room_is_taken_when_it_is_reserved(tmp_path, monkeypatch):
    monkeypatch.setenv(cache_room.FOLDER_ENV, str(tmp_path))
    partial = tmp_path / "content/a.partial"
    partial.parent.mkdir()
    cache_room.reserve(partial, 10**6, ())
    assert partial.stat().st_size == 10**6 <= 512 * partial.stat().st_blocks
    cache_room.reserve(partial, 0, ())
    assert partial.stat().st_size == 0


def test_a_shard_that_others_remove_as_it_is_found_is_fetched(packed, copies, monkeypatch):
    update_index(packed.source)
    shard = list_shards(packed.source)[0]
    stage_shards([shard])
    utime = os.utime

    def remove_first(path: Path, times: tuple[float, float]) -> None:
        monkeypatch.setattr(shard_cache.os, "utime", utime)
        path.unlink()
        utime(path, times)

    monkeypatch.setattr(shard_cache.os, "utime", remove_first)
    stage_shards([shard])
    assert shard.exists()
    assert copies == [shard.name] * 2


def test_a_name_that_changes_while_the_cache_is_counted_is_counted_once(packed, monkeypatch):
    update_index(packed.source)
    stage_shards(list_shards(packed.source)[:2])
    content, expected = list_shards(packed.source)[0].resolve(), cache_room.count_bytes()
    partial, listed = content.with_suffix(".partial"), Path.iterdir
    content.rename(partial)

    def rename_after(folder: Path) -> list[Path]:
        paths = list(listed(folder))
        if partial.exists():
            partial.rename(content)
        return paths

    monkeypatch.setattr(Path, "iterdir", rename_after)
    assert cache_room.count_bytes() == expected > 2 * SHARD


def test_an_error_of_the_cache_is_not_told_as_one_of_the_store(packed, monkeypatch):
    update_index(packed.source)
    opened = Path.open

    def refuse(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode == "r+b":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"denied: 'cache/shards/content/\w+\.partial'"):
        stage_shards(list_shards(packed.source))


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (["a\0.tar"], "found a NUL"),
        (["a//b.tar"], "expected a path below the root"),
        (["a/./b.tar"], "expected a path below the root"),
        (["a/"], "expected a path below the root"),
        (["n" * 252 + ".tar"], "found 256 characters, expected at most 1,024, and 255 bytes"),
        (["é" * 126 + ".tar"], "found 130 characters, expected at most 1,024, and 255 bytes"),
        (["a", "a/b.tar"], r"a: found a file, and a folder around a/b\.tar"),
        (["a/b", "a/b/c/d.tar"], r"a/b: found a file, and a folder around a/b/c/d\.tar"),
    ],
)
def test_names_that_no_folder_can_hold_are_one_line(names, match, packed, monkeypatch):
    rows = [{"name": name, "bytes": 1, "sha256": "0" * 64} for name in names]
    with pytest.raises(DataError, match=match) as at_read:
        parse_index(json.dumps({"shards": rows}).encode(), "i.json")
    monkeypatch.setattr(RemoteStore, "list_files", lambda store: dict.fromkeys(names, 1))
    with pytest.raises(DataError, match=match) as at_plan:
        update_index(packed.source)
    assert "\n" not in f"{at_read.value}{at_plan.value}"


def test_empty_keys_that_stand_for_folders_are_left_out(tmp_path, monkeypatch):
    # as s3fs lists what the console of S3 made
    keys = {"": 0, "sub/": 0, "sub/x.tar": 5}
    monkeypatch.setattr(
        LocalFileSystem,
        "find",
        lambda _, path, **options: {f"{path}/{key}": {"size": keys[key]} for key in keys},
    )
    assert RemoteStore(f"file://{tmp_path}").list_files() == {"sub/x.tar": 5}


def test_the_folder_of_the_cache_may_be_named(packed, tmp_path, monkeypatch):
    monkeypatch.setenv(cache_room.FOLDER_ENV, str(tmp_path / "disk"))
    update_index(packed.source)
    assert scan(packed.source)["sha256"].tolist() == packed.frame["sha256"].tolist()
    assert not Path("cache/shards").exists()
    assert list((tmp_path / "disk/content").iterdir())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", ["a"]),
        ("a-{008..010}.tar", ["a-008.tar", "a-009.tar", "a-010.tar"]),
        ("{a,b}-{1..2}", ["a-1", "a-2", "b-1", "b-2"]),
        ("{a}", ["{a}"]),
    ],
)
def test_braces(text, expected):
    assert expand_braces(text) == expected


def test_a_falling_range_is_refused():
    with pytest.raises(DataError, match=r"found the range 5 to 3, expected a rising one"):
        expand_braces("a-{5..3}.tar")


def test_roots_are_folders_prefixes_files_and_lists(tmp_path):
    for name in ("train-000.tar", "train-001.tar", "val-000.tar", "_info.json", ".hidden"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "below").mkdir()
    (tmp_path / "below/x.tar").touch()
    found = {
        text: list(RemoteStore(f"file://{tmp_path}{text}").list_files())
        for text in ("", "/", "/train-", "/train-{000..001}.tar", "/val-000.tar")
    }
    everything = ["_info.json", "below/x.tar", "train-000.tar", "train-001.tar", "val-000.tar"]
    trains = ["_info.json", "train-000.tar", "train-001.tar"]
    one = ["_info.json", "val-000.tar"]
    assert list(found.values()) == [everything, everything, trains, trains, one]
    for text, missing in (("/train-{000..002}.tar", "train-002.tar"), ("/nothing", "nothing")):
        with pytest.raises(DataError, match=rf"found no .*{missing}; expected a folder, a prefix"):
            RemoteStore(f"file://{tmp_path}{text}").list_files()
    (tmp_path / "val-000.tar.bak").touch()
    assert list(RemoteStore(f"file://{tmp_path}/val-000.tar").list_files()) == one
    with pytest.raises(DataError, match="found shards in 2 folders, expected one"):
        RemoteStore(f"file://{tmp_path}/{{a,b}}/x.tar").list_files()


def test_a_store_that_nothing_reads_is_one_line():
    with pytest.raises(DataError, match=r"nosuch://b: Protocol not known: nosuch; expected file"):
        RemoteStore("nosuch://b").list_files()


def test_a_list_of_shards_is_a_part_of_the_index(packed):
    source = packed.source.model_copy(
        update={"root": packed.source.root + "/imagenet-train-{00000..00001}.tar"}
    )
    index = update_index(source)
    assert [shard.name[-9:] for shard in index.shards] == ["00000.tar", "00001.tar"]
    frame = packed.frame
    expected = frame.iloc[: sum(shard.images or 0 for shard in index.shards)]
    assert check_source(source.model_copy(update={"class_list": None})).images == len(expected)


# The order of the images


@pytest.fixture
def views(packed) -> TwoViewDataset:
    update_index(packed.source)
    data = DataParams(order="shards", block_shards=2)
    return TwoViewDataset(scan(packed.source), locate_root(packed.source), data, (16, 16), 0)


def read_ids(batches) -> list[list[int]]:
    return [batch.image_ids.tolist() for batch in batches]


def test_blocks_hold_all_images_once_in_a_drawn_order(views):
    files, count = views.files, len(views)
    assert isinstance(files, ArchiveImages)
    first, again, second = (draw_block_order(files, epoch, 0, 2) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first.order, again.order)
    assert first.order.tolist() != second.order.tolist()
    start, seen = 0, []
    for end, shards in zip(first.ends, first.shards, strict=True):
        rows = first.order[start:end]
        assert {files.archives[code] for code in files.codes[rows]} == set(shards)
        assert len(shards) <= 2
        # within a block, images follow each other as they would without blocks
        places = np.argsort(draw_epoch_order(count, 0, 0))[rows]
        assert (np.diff(places) > 0).all()
        seen += rows.tolist()
        start = end
    assert sorted(seen) == list(range(count))
    every = draw_block_order(files, 0, 0, 1000)  # one block: the order of all images
    np.testing.assert_array_equal(every.order, draw_epoch_order(count, 0, 0))


def test_order_of_blocks_is_for_shards_only(packed):
    root = packed.folder.parent / "train"
    views = TwoViewDataset(packed.frame, root, DataParams(order="shards"), (16, 16), 0)
    with pytest.raises(DataError, match=r"data\.order: found shards, but the images of the train"):
        create_epoch_loader(views, 0, 4, 2, 0)


def test_a_machine_that_has_not_seen_the_shards_fetches_several_at_a_time(packed, monkeypatch):
    update_index(packed.source)
    frame, root = scan(packed.source), locate_root(packed.source)
    expected = locate_images(root, frame["path"])
    shutil.rmtree("cache")
    locate_root(packed.source)
    together, copy = threading.Barrier(2, timeout=20), shard_cache.copy_remote
    seen: list[str] = []

    def copy_two_at_once(store, name, target):
        seen.append(name)
        if len(seen) <= 2:
            together.wait()  # a second one has begun before the first is there
        return copy(store, name, target)

    monkeypatch.setattr(shard_cache, "copy_remote", copy_two_at_once)
    assert list(locate_images(root, frame["path"])) == list(expected)
    assert sorted(seen) == [path.name for path in list_shards(packed.source)]
    seen.clear()
    for path in Path("cache/shards/content").iterdir():
        path.unlink()
    assert list(locate_images(root, frame["path"])) == list(expected)
    assert not seen  # its headers are known


@pytest.mark.parametrize("order", ["images", "shards"])
def test_a_run_resumes_only_in_the_order_that_it_began_with(packed, order):
    """What is packed with other sizes has other blocks; other names of shards change nothing."""
    update_index(packed.source)
    (packed.folder.parent / "larger").mkdir()
    train = packed.folder.parent / "train"
    pack_images("a", packed.frame, WNIDS, train, packed.folder.parent / "larger", 8000)
    (packed.folder.parent / "renamed").mkdir()
    pack_images("b", packed.frame, WNIDS, train, packed.folder.parent / "renamed", 4000)
    data, hashes, orders = DataParams(order=order, block_shards=2), [], []
    for name in ("shards", "larger", "renamed"):
        root = f"file://{packed.folder.parent}/{name}"
        source = packed.source.model_copy(update={"root": root, "tracked_by": f"{name}.json"})
        update_index(source)
        images = ImageSet(scan(source), locate_root(source))
        hashes.append(hash_images(data, images))
        files = locate_images(images.root, images.frame["path"])
        orders.append(draw_block_order(files, 0, 0, 2).order.tolist())
    assert [found == hashes[0] for found in hashes] == [True, order == "images", True]
    assert [found == orders[0] for found in orders] == [True, False, True]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_of_two_blocks_gives_the_batches_of_a_large_one(views, workers, monkeypatch):
    expected = read_ids(create_epoch_loader(views, 1, 5, 4, 0))
    limit_cache(monkeypatch, 4.2)
    for path in Path("cache/shards/content").glob("*[!k]"):
        path.unlink()
    held, found = [], []
    for batch in create_epoch_loader(views, 1, 5, 4, workers):
        found += read_ids([batch])
        held.append(len(list_content()))
    assert found == expected
    assert max(held) <= 4
    assert read_ids(create_epoch_loader(views, 1, 5, 4, workers, start=2)) == expected[2:]
    limit_cache(monkeypatch, 2.5)
    with pytest.raises(CacheFullError, match="needs two blocks"):
        read_ids(create_epoch_loader(views, 1, 5, 4, 0))


def test_views_are_those_of_the_folders(packed):
    update_index(packed.source)
    batches = []
    for frame, root in (
        (packed.frame, packed.folder.parent / "train"),
        (scan(packed.source), locate_root(packed.source)),
    ):
        views = TwoViewDataset(frame, root, DataParams(), (16, 16), 0)
        batches.append(list(create_epoch_loader(views, 0, 6, 4, 0)))
    for ours, theirs in zip(*batches, strict=True):
        assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


def test_what_is_packed_again_keeps_its_names(packed, tmp_path):
    update_index(packed.source)
    (tmp_path / "again").mkdir()
    root = locate_root(packed.source)
    pack_images("again", scan(packed.source), WNIDS, root, tmp_path / "again", 9000)
    source = DatasetParams(root="again", tracked_by="again", layout="webdataset")
    pd.testing.assert_frame_equal(
        scan(source).drop(columns="path"), packed.frame.drop(columns="path")
    )
