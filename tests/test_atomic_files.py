"""What is written atomically replaces its own kind and nothing else."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from densecl.artifacts import write_text
from densecl.errors import DenseclError
from densecl.runtime.atomic_files import create_atomic_folder


@pytest.mark.parametrize("name", ["report.html", "report.html.partial"])
def test_nothing_but_a_file_is_replaced_by_a_file(tmp_path, name):
    target, place = tmp_path / "report.html", tmp_path / name
    creators = [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/null")]
    if os.geteuid() == 0:
        creators.append(lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7)))
    for create in creators:
        create(place)
        kind = stat.S_IFMT(place.lstat().st_mode)
        with pytest.raises(DenseclError, match=rf"{name}: found no plain file"):
            write_text(target, "text")
        assert stat.S_IFMT(place.lstat().st_mode) == kind
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    write_text(target, "text")
    assert target.read_text() == "text"


def test_a_link_to_a_file_is_replaced_and_not_followed(tmp_path):
    """DVC links its outs to its cache."""
    (tmp_path / "cache").write_text("old")
    (tmp_path / "out").symlink_to("cache")
    write_text(tmp_path / "out", "new")
    assert not (tmp_path / "out").is_symlink()
    assert (tmp_path / "cache").read_text() == "old"


def test_nothing_but_a_folder_is_replaced_by_a_folder(tmp_path):
    target = tmp_path / "model"
    for create in (os.mkfifo, lambda path: path.write_text(""), lambda path: path.symlink_to("/")):
        create(target)
        with (
            pytest.raises(DenseclError, match="model: found no folder"),
            create_atomic_folder(target),
        ):
            pass
        assert not target.is_dir() or target.is_symlink()
        target.unlink()
    with create_atomic_folder(target) as folder:
        (folder / "file").touch()
    assert [path.name for path in target.iterdir()] == ["file"]


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_nothing_is_written_through_a_link_that_lies_in_the_way(tmp_path, link):
    """As a git repository or a shared folder may hold one."""
    victim, target = tmp_path / "victim", tmp_path / "report.html"
    victim.write_text("kept")
    link(target.with_name("report.html.partial"), victim)
    write_text(target, "text")
    assert victim.read_text() == "kept"
    assert target.read_text() == "text"


def test_an_open_file_of_a_process_is_not_replaced(tmp_path):
    """/dev/stdout leads there; redirected, it is a plain file."""
    with (tmp_path / "redirected").open("w") as file:
        link = tmp_path / "stdout"
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(DenseclError, match=r"stdout: found no plain file"):
            write_text(link, "text")
        assert link.is_symlink()
