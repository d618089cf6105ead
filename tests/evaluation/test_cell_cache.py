"""Kept results: whole or not there, in a folder or in a store, and never a reason to stop."""

import hashlib
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from densecl.evaluation.cell_cache import CellCache
from tests.s3_server import KEYS, serve_s3

CONTENT = b"\x00\xff\n" * 1000


@pytest.fixture(params=["folder", "memory"])
def url(request, tmp_path) -> str:
    if request.param == "folder":
        return str(tmp_path / "below" / "cells")
    return f"memory://{uuid.uuid4().hex}/cells"


def test_what_one_process_keeps_another_reads(url):
    assert CellCache(url).read("key") is None
    CellCache(url).write("key", CONTENT)
    CellCache(url).write("empty", b"")
    assert CellCache(url).read("key") == CONTENT
    assert CellCache(url).read("empty") == b""
    assert CellCache(url).read("another") is None
    fs, folder = fsspec.url_to_fs(url)
    assert sorted(path.rsplit("/")[-1] for path in fs.ls(folder, detail=False)) == ["empty", "key"]


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:10], lambda _: b"", lambda b: b[:-1] + b"x"]
)
def test_a_damaged_entry_is_reported_and_can_be_written_again(url, damage, capsys):
    cache = CellCache(url)
    cache.write("key", CONTENT)
    fs, folder = fsspec.url_to_fs(url)
    fs.pipe_file(f"{folder}/key", damage(fs.cat_file(f"{folder}/key")))
    assert cache.read("key") is None
    assert capsys.readouterr().err.count("damaged, found other bytes than its sha256 says") == 1
    cache.write("key", CONTENT)
    assert cache.read("key") == CONTENT
    assert capsys.readouterr().err == ""


def test_an_entry_is_its_sha256_a_line_break_and_its_content(tmp_path):
    CellCache(str(tmp_path)).write("key", CONTENT)
    digest, _, content = (tmp_path / "key").read_bytes().partition(b"\n")
    assert (digest.decode(), content) == (hashlib.sha256(CONTENT).hexdigest(), CONTENT)


def test_a_write_that_is_stopped_leaves_the_entry_that_was_there(tmp_path, monkeypatch):
    cache = CellCache(str(tmp_path))
    cache.write("key", CONTENT)
    write = LocalFileSystem.pipe_file

    def stop_half_way(fs, path, value, **options):
        write(fs, path, value[:100], **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalFileSystem, "pipe_file", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        cache.write("key", b"other")
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["key"]
    assert cache.read("key") == CONTENT


def test_nothing_is_kept_without_a_place(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cache = CellCache(None)
    cache.write("key", CONTENT)
    assert cache.read("key") is None
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("place", ["nosuch://bucket/cells", "taken/cells"])
def test_a_place_that_cannot_be_used_is_one_warning(place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("taken").touch()
    cache = CellCache(place)
    for key in ("a", "b"):
        assert cache.read(key) is None
        cache.write(key, CONTENT)
        assert cache.read(key) is None
    told = capsys.readouterr().err
    assert told.count("\n") == told.count("warning: evaluate.cell_cache: ") == 1
    assert f"{place} cannot be used" in told
    assert "continuing without it" in told


def test_a_place_that_cannot_be_written_is_still_read(tmp_path, monkeypatch, capsys):
    CellCache(str(tmp_path)).write("kept", CONTENT)

    def refuse(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(LocalFileSystem, "pipe_file", refuse)
    cache = CellCache(str(tmp_path))
    for key in ("a", "b"):
        cache.write(key, CONTENT)
    assert cache.read("kept") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "cannot be written (PermissionError: read-only); nothing more is kept in it" in told


@pytest.mark.slow
def test_machines_share_a_bucket(monkeypatch, capsys):
    url = "s3://shared/densecl/cells"
    with serve_s3("shared") as address:
        assert CellCache(url).read("key") is None
        CellCache(url).write("key", CONTENT)
        assert fsspec.filesystem("s3").ls("shared/densecl/cells", detail=False) == [
            "shared/densecl/cells/key"
        ]
        assert CellCache(url).read("key") == CONTENT
        fsspec.filesystem("s3").pipe_file("shared/densecl/cells/key", b"short")
        assert CellCache(url).read("key") is None
        assert "damaged" in capsys.readouterr().err
    for name, value in (KEYS | {"AWS_ENDPOINT_URL": address}).items():
        monkeypatch.setenv(name, value)  # of a server that has gone
    cache = CellCache(url)
    cache.write("other", CONTENT)
    assert cache.read("other") is None
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert "cannot be written (EndpointConnectionError" in told[0]
    assert "cannot be used (EndpointConnectionError" in told[1]
