"""What is found of the images of a shard is kept: `prepare` writes the same bytes whatever is kept,
and reads only what is not.
"""

import hashlib
import io
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from densecl import paths
from densecl.artifacts import DatasetPlan, read_json, write_json
from densecl.config.params import DatasetParams
from densecl.datasets.manifests import inspect, kept_scans, scan
from densecl.datasets.manifests.inspect import FileInfo
from densecl.datasets.manifests.layouts import shard_images, shard_listings
from densecl.datasets.storage import shard_cache
from densecl.datasets.storage.open_files import OPEN_FILES
from densecl.datasets.storage.remote_root import locate_root, update_index
from densecl.errors import DataError, RetryLater
from densecl.runtime import kept_files
from steps import prepare, scan as scan_step
from tests.conftest import WNIDS, draw_set

SHARDS, PER_SHARD = 3, 4


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Twelve images of three classes: one is damaged, one has a single colour, one lies on a
    side.
    """
    monkeypatch.chdir(tmp_path)
    files = sorted(draw_set(Path("folder"), PER_SHARD).glob("*/*"))
    files[1].write_bytes(files[1].read_bytes()[:300])
    Image.new("RGB", (8, 8)).save(files[5])
    exif, pixels = Image.Exif(), np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    exif[0x0112] = 6
    Image.fromarray(pixels).save(files[6], exif=exif)
    Path("there").mkdir()
    return files


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the shards that are copied from the store."""
    seen, copy = list[str](), shard_cache.copy_remote
    monkeypatch.setattr(
        shard_cache, "copy_remote", lambda *args: (seen.append(args[1]), copy(*args))[1]
    )
    return seen


@pytest.fixture
def inspected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Shards of the images that are looked at."""
    seen, inspect = list[str](), scan.inspect_file

    def look(path: Path, exif: str) -> FileInfo:
        seen.append(path.parent.name)
        return inspect(path, exif)

    monkeypatch.setattr(scan, "inspect_file", look)
    return seen


def pack(images: list[Path], layout: str) -> None:
    """Every third image in each of three shards, and the index of what is there now."""
    for number in range(SHARDS):
        rows = images[number::SHARDS]
        labels = [WNIDS.index(path.parent.name) for path in rows]
        if layout == "parquet":
            cells = [{"bytes": path.read_bytes(), "path": path.name} for path in rows]
            pq.write_table(pa.table({"image": cells, "label": labels}), f"there/{number}.parquet")
            continue
        with tarfile.open(f"there/{number}.tar", "w") as tar:
            for path, label in zip(rows, labels, strict=True):
                key = f"{path.parent.name}_{path.stem}"
                members = {f"{key}.jpg": path.read_bytes(), f"{key}.cls": str(label).encode()}
                for name, content in members.items():
                    info = tarfile.TarInfo(name)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    Path("classes.txt").write_text("\n".join(WNIDS))
    Path("i.json").unlink(missing_ok=True)
    update_index(describe_source(layout))


def describe_source(layout: str) -> DatasetParams:
    root = f"file://{Path('there').absolute()}"
    return DatasetParams(root=root, tracked_by="i.json", layout=layout, class_list="classes.txt")


def write_plan(source: DatasetParams, exif: str = "ignore") -> None:
    plan = DatasetPlan(
        name="own",
        dataset=source,
        train=source,
        preprocess=None,
        protocol="folder",
        classes=(),
        optional=False,
        exif=exif,
    )
    write_json(paths.plan_file("own"), plan)


def run_prepare(layout: str = "webdataset", exif: str = "ignore", step=prepare) -> bytes:
    """The bytes that `prepare` writes."""
    write_plan(describe_source(layout), exif)
    step.main("own")
    if step is scan_step:
        return b""
    return paths.manifest_file("own").read_bytes() + paths.skipped_file("own").read_bytes()


def list_scans() -> list[Path]:
    return sorted(paths.SCANS.iterdir())


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_the_bytes_are_the_same_whatever_is_kept(images, layout, inspected, fetched):
    pack(images, layout)
    expected = run_prepare(layout)
    assert len(inspected) == len(images)
    kept = list_scans()
    assert len(kept) == SHARDS
    for count in range(SHARDS + 1):
        for path in kept[:count]:
            path.unlink()
        inspected.clear()
        assert run_prepare(layout) == expected
        assert len(inspected) == count * PER_SHARD
        assert list_scans() == kept
    shutil.rmtree(paths.SHARDS)
    shutil.rmtree(paths.ARCHIVES)
    fetched.clear()
    inspected.clear()
    assert run_prepare(layout) == expected
    assert (fetched, inspected) == ([], [])


def test_several_processes_keep_the_same(images, monkeypatch):
    pack(images, "webdataset")
    expected = run_prepare()
    kept = {path: path.read_bytes() for path in list_scans()}
    shutil.rmtree("cache")
    monkeypatch.setattr(scan, "SERIAL_BYTES", 0)
    monkeypatch.setenv("DENSECL_WORKERS", "2")
    assert run_prepare() == expected
    assert {path: path.read_bytes() for path in list_scans()} == kept


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_a_scan_before_serves_prepare(images, layout, inspected, fetched, capsys):
    pack(images, layout)
    expected = run_prepare(layout)
    shutil.rmtree("cache")
    run_prepare(layout, step=scan_step)
    assert "own: 12 images scanned, 0 known already" in capsys.readouterr().out
    fetched.clear()
    inspected.clear()
    run_prepare(layout, step=scan_step)
    assert "own: 0 images scanned, 12 known already" in capsys.readouterr().out
    shutil.rmtree(paths.SHARDS)
    assert run_prepare(layout) == expected
    assert (fetched, inspected) == ([], [])


@pytest.mark.parametrize(
    "damage", ["first byte", "middle", "last byte", "cut", "empty", "of another shard", "other"]
)
def test_a_kept_file_that_is_not_as_it_was_kept_is_not_used(images, damage, inspected):
    pack(images, "webdataset")
    expected = run_prepare()
    for folder in (paths.SCANS, paths.LISTINGS):
        files = sorted(folder.iterdir())
        good, content = files[0].read_bytes(), bytearray(files[0].read_bytes())
        if damage in ("first byte", "middle", "last byte"):
            place = {"first byte": 0, "middle": len(content) // 2, "last byte": -1}[damage]
            content[place] ^= 1
        else:
            content = {
                "cut": content[:-20],
                "empty": b"",
                "of another shard": files[1].read_bytes(),
                "other": b"a line\nand another\n",
            }[damage]
        files[0].write_bytes(content)
        inspected.clear()
        assert run_prepare() == expected
        assert len(inspected) == (PER_SHARD if folder == paths.SCANS else 0)
        assert files[0].read_bytes() == good


def test_a_kept_file_of_another_schema_is_not_used(images, inspected):
    pack(images, "webdataset")
    expected = run_prepare()
    buffer = io.BytesIO()
    pq.write_table(pa.table({"name": ["a.jpg"]}), buffer)
    kept_scans.write_kept(list_scans()[0], buffer.getvalue())
    inspected.clear()
    assert run_prepare() == expected
    assert len(inspected) == PER_SHARD


def test_only_the_shard_that_changed_is_scanned(images, inspected):
    pack(images, "webdataset")
    before = run_prepare()
    Image.new("RGB", (9, 9), (10, 200, 30)).save(images[4])
    pack(images, "webdataset")
    inspected.clear()
    after = run_prepare()
    assert after != before
    assert inspected == ["1.tar"] * PER_SHARD
    shutil.rmtree("cache")
    assert run_prepare() == after


def test_orientation_and_code_are_in_the_key(images, inspected, monkeypatch):
    pack(images, "webdataset")
    ignored = run_prepare()
    applied = run_prepare(exif="apply")
    assert applied != ignored
    assert len(inspected) == 2 * len(images)
    assert (run_prepare(), run_prepare(exif="apply")) == (ignored, applied)
    assert len(inspected) == 2 * len(images)
    monkeypatch.setattr(kept_scans, "_describe_code", lambda: ["other code"])
    assert run_prepare() == ignored
    assert len(inspected) == 3 * len(images)


def test_what_an_interrupted_prepare_has_scanned_is_kept(images, inspected, monkeypatch):
    pack(images, "webdataset")
    expected = run_prepare()
    shutil.rmtree("cache")
    inspected.clear()
    look = scan.inspect_file

    def stop_in_the_last_shard(path: Path, exif: str) -> FileInfo:
        if len(inspected) > 2 * PER_SHARD:
            raise KeyboardInterrupt
        return look(path, exif)

    monkeypatch.setattr(scan, "inspect_file", stop_in_the_last_shard)
    with pytest.raises(KeyboardInterrupt):
        run_prepare()
    assert len(list_scans()) == 2
    assert not list(Path("cache").rglob("*.partial"))
    monkeypatch.setattr(scan, "inspect_file", look)
    inspected.clear()
    assert run_prepare() == expected
    assert inspected == ["2.tar"] * PER_SHARD


@pytest.mark.parametrize(
    ("function", "error"),
    [
        ("read_file", OSError(5, "Input/output error")),
        ("convert_to_rgb", OSError(5, "Input/output error")),
        ("convert_to_rgb", MemoryError()),
        ("convert_to_rgb", RuntimeError("decoder is out of memory")),
    ],
)
def test_an_image_that_failed_for_a_passing_reason_is_looked_at_again(
    images, inspected, monkeypatch, function, error
):
    """By `prepare` itself: the shard counts as scanned, so that no job is asked for it again."""
    pack(images, "webdataset")
    expected, work = run_prepare(), getattr(inspect, function)
    shutil.rmtree(paths.SCANS)

    def fail_once(*arguments):
        if len(inspected) == len(images) + 3:
            raise error
        return work(*arguments)

    monkeypatch.setattr(inspect, function, fail_once)
    assert run_prepare() != expected
    source = describe_source("webdataset")
    plan = read_json(DatasetPlan, paths.plan_file("own"))
    assert all(shard_images.is_scanned(plan, s) for s in shard_images.locate_shards(source))
    monkeypatch.setattr(inspect, function, work)
    inspected.clear()
    assert run_prepare() == expected
    assert len(inspected) == 1
    inspected.clear()
    assert run_prepare() == expected
    assert inspected == []


def test_a_shard_that_was_damaged_in_the_cache_is_not_scanned_under_its_sha256(images):
    pack(images, "webdataset")
    expected = run_prepare()
    shutil.rmtree(paths.SCANS)
    shard = locate_root(describe_source("webdataset")) / "1.tar"
    content, found = bytearray(shard.read_bytes()), shard.stat()
    content[700:730] = bytes(30)
    shard.resolve().write_bytes(content)
    os.utime(shard.resolve(), ns=(found.st_atime_ns, found.st_mtime_ns))
    with pytest.raises(
        RetryLater, match=r"expected those of the shard 1\.tar: it was damaged here"
    ):
        run_prepare()
    assert not shard.exists()
    OPEN_FILES.files.clear()  # as the same command, which is another process
    assert run_prepare() == expected


def test_a_shard_that_was_damaged_in_the_cache_is_not_listed_under_its_sha256(images):
    """One digit of a label."""
    pack(images, "webdataset")
    expected = run_prepare()
    shutil.rmtree(paths.LISTINGS)
    shard = locate_root(describe_source("webdataset")) / "1.tar"
    content, found = bytearray(shard.read_bytes()), shard.stat()
    place = content.index(b".cls") // 512 * 512 + 512
    assert chr(content[place]) in "012"
    content[place] = ord("0") if content[place] != ord("0") else ord("1")
    shard.resolve().write_bytes(content)
    os.utime(shard.resolve(), ns=(found.st_atime_ns, found.st_mtime_ns))
    OPEN_FILES.files.clear()
    with pytest.raises(
        RetryLater, match=r"expected those of the shard 1\.tar: it was damaged here"
    ):
        run_prepare()
    OPEN_FILES.files.clear()
    assert run_prepare() == expected


def test_the_last_images_are_reported(images):
    pack(images, "webdataset")
    run_prepare()
    shutil.rmtree(paths.SCANS)
    source = describe_source("webdataset")
    names = [f"{shard.name}/{name}" for shard, name in list_names(source)]
    seen = []
    list(scan.inspect_images(locate_root(source), names, 1, lambda *counts: seen.append(counts)))
    assert seen[-1] == (len(images), len(images))


def test_a_listing_depends_on_what_counts_as_an_image(images, monkeypatch):
    """As on a node without pillow-heif."""
    pack(images, "webdataset")
    run_prepare()
    shard = locate_root(describe_source("webdataset")) / "1.tar"
    assert shard_listings.read_listing(shard) is not None
    monkeypatch.setattr(shard_listings, "EXTENSIONS", (".png",))
    shard_listings._describe_code.cache_clear()
    assert shard_listings.read_listing(shard) is None
    shard_listings._describe_code.cache_clear()


@pytest.mark.parametrize(
    "kind", ["folder", "pipe", "loop", "huge", "nothing", "no Parquet, no JSON"]
)
def test_what_is_no_kept_file_is_not_used(images, kind):
    pack(images, "webdataset")
    expected = run_prepare()
    for file in (list_scans()[0], sorted(paths.LISTINGS.iterdir())[0]):
        file.unlink()
        if kind == "folder":
            file.mkdir()
        elif kind == "pipe":
            os.mkfifo(file)
        elif kind == "loop":
            file.symlink_to(file.name)
        elif kind == "huge":
            file.touch()
            os.truncate(file, 2**36)
        elif kind == "no Parquet, no JSON":
            kept_files.write_kept(file, b"something else")
        assert not kept_files.read_kept(file) or kind == "no Parquet, no JSON"
        if kind == "folder":  # nothing can be kept in its place
            file.rmdir()
        assert run_prepare() == expected
        assert kept_files.read_kept(file)


def test_threads_may_keep_the_same_file(tmp_path):
    """Two shards of one content, or of two datasets, whose jobs end together."""
    kept_files.write_kept(tmp_path / "a", b"content" * 5000)
    stored = (tmp_path / "a").read_bytes()
    with ThreadPoolExecutor(8) as threads:
        for done in [
            threads.submit(kept_files.accept_kept, tmp_path / "a", stored) for _ in range(200)
        ]:
            done.result()
    kept_files.accept_kept(tmp_path / "a", stored[:-1])
    kept_files.accept_kept(tmp_path / "b", stored)  # of another name
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert kept_files.read_kept(tmp_path / "a") == b"content" * 5000


def test_a_kept_file_that_is_removed_meanwhile_is_made_again(images, inspected):
    pack(images, "webdataset")
    run_prepare()
    source = describe_source("webdataset")
    root = locate_root(source)
    names = [f"{shard.name}/{name}" for shard, name in list_names(source)]
    infos = list(scan.inspect_images(root, names, 1))
    first = kept_scans.locate_scan(root / "0.tar", "ignore")
    lazily = scan.inspect_images(root, names, 1, unscanned=[])
    first.unlink()
    assert list(lazily) == infos
    assert first.exists()


def test_images_of_some_classes_are_kept_beside_those_of_others(images, inspected):
    pack(images, "webdataset")
    expected = run_prepare()
    shutil.rmtree(paths.SCANS)
    inspected.clear()
    source = describe_source("webdataset")
    names = [f"{shard.name}/{name}" for shard, name in list_names(source)]
    first = [name for name in names if WNIDS[0] in name]
    list(scan.inspect_images(locate_root(source), first, 1))
    assert len(inspected) == len(first) == PER_SHARD
    assert run_prepare() == expected
    assert len(inspected) == len(images)


def list_names(source: DatasetParams) -> list[tuple[Path, str]]:
    found = scan_step.iter_shard_images(source)
    return [(shard, name) for shard, names in found for name in names]


def test_a_folder_has_no_scans_to_keep(images):
    write_plan(DatasetParams(root="folder", tracked_by="folder"))
    prepare.main("own")
    assert not paths.SCANS.exists()
    with pytest.raises(DataError, match="own: found root folder, expected shards in a store"):
        scan_step.main("own")


def test_values_are_kept_as_they_were_found(images):
    pack(images, "webdataset")
    run_prepare()
    root = locate_root(describe_source("webdataset"))
    for number in range(SHARDS):
        kept = kept_scans.read_scan(root / f"{number}.tar", "ignore")
        fresh = {name: scan.inspect_file(root / f"{number}.tar" / name) for name in kept}
        assert kept == fresh
        by_content = {info.sha256 for info in kept.values()}
        assert by_content == {
            hashlib.sha256(path.read_bytes()).hexdigest() for path in images[number::SHARDS]
        }
