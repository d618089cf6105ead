"""What DVC recorded of the stages, now or at a commit: path -> md5 of all that each read and
left.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from densecl.errors import DenseclError

LOCK = "dvc.lock"
PLANNING = "plan"  # the stage whose outs are params: named beside the stages that read them
NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class File:
    """A file or folder with the md5 that DVC recorded; a folder's ends in .dir."""

    path: str
    md5: str
    files: int | None = None  # of a folder


@dataclass(frozen=True)
class Stage:
    name: str
    reads: tuple[File, ...]
    writes: tuple[File, ...]


@dataclass(frozen=True)
class Record:
    """The stages of one dvc.lock, by name."""

    source: str  # which dvc.lock
    git: str  # the commit it belongs to; "" where none holds it
    stages: dict[str, Stage]

    def writer(self, path: str) -> Stage | None:
        """The stage that leaves the path, the folder it lies in, or something in the folder that it
        is.
        """
        return next(
            (s for s in self.stages.values() if any(_meet(path, out.path) for out in s.writes)),
            None,
        )

    def writers(self, stage: Stage) -> list[Stage]:
        """The stages that left what a stage read, planning apart."""
        return [s for s in self.stages.values() if s.name != PLANNING and _feeds(s, stage)]

    def readers(self, stage: Stage) -> list[Stage]:
        return [s for s in self.stages.values() if stage.name != PLANNING and _feeds(stage, s)]

    def holders(self, md5: str) -> list[Stage]:
        """The stages that left what has the md5; where none did, those that read it."""
        for kind in ("writes", "reads"):
            found = [s for s in self.stages.values() if any(f.md5 == md5 for f in getattr(s, kind))]
            if found:
                return found
        return []


def _meet(first: str, second: str) -> bool:
    return first == second or first.startswith(f"{second}/") or second.startswith(f"{first}/")


def _feeds(first: Stage, second: Stage) -> bool:
    return any(_meet(out.path, dep.path) for out in first.writes for dep in second.reads)


def records(md5: str = "", revision: str = "") -> Iterator[Record]:
    """dvc.lock of the workspace, of a commit, and of the commits that brought or took the md5, in
    that order.
    """
    if Path(LOCK).exists():
        text = Path(LOCK).read_text(encoding="utf-8")
        yield _record(text, f"{LOCK} of the workspace", _head(text))
    commits = [revision.removesuffix("+")] if revision else []
    if md5:
        commits += git("log", "--all", "--format=%H", f"-S{md5}", "--", LOCK).split()
    for commit in dict.fromkeys(commits):
        if text := git("show", f"{commit}:{LOCK}"):
            yield _record(text, f"{LOCK} of commit {commit[:12]}", commit)


def git(*words: str) -> str:
    """What git answers; "" outside git and where it refuses."""
    try:
        done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout if done.returncode == 0 else ""


def _head(text: str) -> str:
    """The commit that is checked out; "+" behind it where its dvc.lock is another one or it has
    none.
    """
    commit = git("rev-parse", "HEAD").strip()
    return commit + ("" if not commit or git("show", f"HEAD:{LOCK}") == text else "+")


def _record(text: str, source: str, commit: str) -> Record:
    try:
        stages: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))[  # noqa: S506
            "stages"
        ]
        read = {
            name: Stage(name, _files(s.get("deps")), _files(s.get("outs")))
            for name, s in stages.items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:120]
        raise DenseclError(
            f"{source}: found no stages as DVC writes them ({why}); `dvc repro` writes it anew"
        ) from None
    return Record(source, commit, read)


def _files(entries: list[dict[str, Any]] | None) -> tuple[File, ...]:
    return tuple(File(e["path"], str(e.get("md5") or ""), e.get("nfiles")) for e in entries or [])


class Workspace:
    """The project's files as they are now, and DVC's cache."""

    def __init__(self) -> None:
        self._known: dict[str, str | None] = {}

    @cached_property
    def _repo(self) -> Any:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            return Repo(".")
        except DvcException:  # no project of DVC, or not the git repository that it was made in
            return None

    def md5(self, path: str) -> str | None:
        """As DVC computes it, with what it remembers of unchanged folders; None where nothing is
        there.
        """
        if path not in self._known:
            self._known[path] = self._md5(path)
        return self._known[path]

    def _md5(self, path: str) -> str | None:
        if not Path(path).exists():
            return None
        if Path(path).is_file():
            return plain_md5(Path(path))
        if self._repo is None:
            return NOT_CHECKED
        from dvc.fs import LocalFileSystem
        from dvc_data.hashfile.build import build

        whole = str(Path(path).absolute())
        ignore = self._repo.dvcignore
        _, _, found = build(
            self._repo.cache.local, whole, LocalFileSystem(), "md5", dry_run=True, ignore=ignore
        )
        return str(found.hash_info.value)

    def changed(self, file: File) -> str:
        """How the file differs from what was recorded, in words; "" where it does not."""
        now = self.md5(file.path)
        if now is None:
            return "no longer there"
        if now == NOT_CHECKED:
            return "not compared: no DVC project here"
        return "" if now == file.md5 else f"now {now[:12]}"

    def text(self, file: File) -> str | None:
        """Its recorded content, from the workspace or DVC's cache; None where neither has it."""
        for place in (Path(file.path), self._cached(file.md5)):
            if place is not None and place.is_file() and plain_md5(place) == file.md5:
                return place.read_text(encoding="utf-8")
        return None

    def inside(self, folder: File) -> dict[str, str]:
        """md5 of each file of a recorded folder, by path below it; empty where DVC's cache no
        longer has the list.
        """
        place = self._cached(folder.md5) if folder.md5.endswith(".dir") else None
        if place is None or not place.is_file():
            return {}
        return {
            entry["relpath"]: entry["md5"]
            for entry in json.loads(place.read_text(encoding="utf-8"))
        }

    def _cached(self, md5: str) -> Path | None:
        return (
            Path(self._repo.cache.local.oid_to_path(md5))
            if self._repo is not None and md5
            else None
        )


def plain_md5(path: Path) -> str:
    """Of a file's bytes, as DVC records it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
