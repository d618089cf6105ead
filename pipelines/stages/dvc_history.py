"""What DVC recorded of the stages, now or at a commit: path -> md5 of all that each read and
left.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from densecl.errors import DenseclError
from densecl.runtime.git import run_git

LOCK_FILE = "dvc.lock"
PLANNING = "plan"  # the stage whose outs are params: named beside the stages that read them
NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class LockedFile:
    """A file or folder with the md5 that DVC recorded; a folder's ends in .dir."""

    path: str
    md5: str
    files: int | None = None  # of a folder


@dataclass(frozen=True)
class LockedStage:
    name: str
    reads: tuple[LockedFile, ...]
    writes: tuple[LockedFile, ...]


@dataclass(frozen=True)
class LockSnapshot:
    """The stages of one dvc.lock, by name."""

    source: str  # which dvc.lock
    git: str  # the commit it belongs to; "" where none holds it
    stages: dict[str, LockedStage]

    def find_writer(self, path: str) -> LockedStage | None:
        """The stage that leaves the path, the folder that contains it, or something in the folder
        that it is.
        """
        return next(
            (
                s
                for s in self.stages.values()
                if any(_is_overlapping(path, out.path) for out in s.writes)
            ),
            None,
        )

    def list_writers(self, stage: LockedStage) -> list[LockedStage]:
        """The stages that left what a stage read, planning apart."""
        return [s for s in self.stages.values() if s.name != PLANNING and _is_upstream(s, stage)]

    def list_readers(self, stage: LockedStage) -> list[LockedStage]:
        return [
            s for s in self.stages.values() if stage.name != PLANNING and _is_upstream(stage, s)
        ]

    def find_by_md5(self, md5: str) -> list[LockedStage]:
        """The stages that left what has the md5; where none did, those that read it."""
        for direction in ("writes", "reads"):
            stages = [
                s for s in self.stages.values() if any(f.md5 == md5 for f in getattr(s, direction))
            ]
            if stages:
                return stages
        return []


def _is_overlapping(first: str, second: str) -> bool:
    return first == second or first.startswith(f"{second}/") or second.startswith(f"{first}/")


def _is_upstream(producer: LockedStage, consumer: LockedStage) -> bool:
    return any(
        _is_overlapping(out.path, dep.path) for out in producer.writes for dep in consumer.reads
    )


def iter_snapshots(md5: str = "", revision: str = "") -> Iterator[LockSnapshot]:
    """dvc.lock of the workspace, of a commit, and of the commits that brought or took the md5, in
    that order.
    """
    if Path(LOCK_FILE).exists():
        text = Path(LOCK_FILE).read_text(encoding="utf-8")
        yield _parse_snapshot(text, f"{LOCK_FILE} of the workspace", _describe_head(text))
    commits = [revision.removesuffix("+")] if revision else []
    if md5:
        commits += run_git("log", "--all", "--format=%H", f"-S{md5}", "--", LOCK_FILE).split()
    for commit in dict.fromkeys(commits):
        if text := run_git("show", f"{commit}:{LOCK_FILE}"):
            yield _parse_snapshot(text, f"{LOCK_FILE} of commit {commit[:12]}", commit)


def _describe_head(text: str) -> str:
    """The commit that is checked out; "+" behind it where its dvc.lock is another one or it has
    none.
    """
    commit = run_git("rev-parse", "HEAD").strip()
    return commit + ("" if not commit or run_git("show", f"HEAD:{LOCK_FILE}") == text else "+")


def _parse_snapshot(text: str, source: str, commit: str) -> LockSnapshot:
    try:
        stages: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))[  # noqa: S506
            "stages"
        ]
        stages_read = {
            name: LockedStage(name, _parse_files(s.get("deps")), _parse_files(s.get("outs")))
            for name, s in stages.items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DenseclError(
            f"{source}: found no stages as DVC writes them ({reason}); `dvc repro` writes it anew"
        ) from None
    return LockSnapshot(source, commit, stages_read)


def _parse_files(entries: list[dict[str, Any]] | None) -> tuple[LockedFile, ...]:
    return tuple(
        LockedFile(e["path"], str(e.get("md5") or ""), e.get("nfiles")) for e in entries or []
    )


class WorkspaceState:
    """The project's files as they are now, and DVC's cache."""

    def __init__(self) -> None:
        self._md5_cache: dict[str, str | None] = {}

    @cached_property
    def _repo(self) -> Any:
        from dvc.exceptions import DvcException
        from dvc.repo import Repo

        try:
            return Repo(".")
        except DvcException:  # no project of DVC, or not the git repository that it was made in
            return None

    def get_md5(self, path: str) -> str | None:
        """As DVC computes it, with what it remembers of unchanged folders; None where nothing is
        there.
        """
        if path not in self._md5_cache:
            self._md5_cache[path] = self._compute_md5(path)
        return self._md5_cache[path]

    def _compute_md5(self, path: str) -> str | None:
        if not Path(path).exists():
            return None
        if Path(path).is_file():
            return compute_md5(Path(path))
        if self._repo is None:
            return NOT_CHECKED
        from dvc.fs import LocalFileSystem
        from dvc_data.hashfile.build import build

        absolute = str(Path(path).absolute())
        ignore = self._repo.dvcignore
        _, _, tree = build(
            self._repo.cache.local, absolute, LocalFileSystem(), "md5", dry_run=True, ignore=ignore
        )
        return str(tree.hash_info.value)

    def describe_change(self, file: LockedFile) -> str:
        """How the file differs from what was recorded, in words; "" where it does not."""
        current = self.get_md5(file.path)
        if current is None:
            return "no longer there"
        if current == NOT_CHECKED:
            return "not compared: no DVC project here"
        return "" if current == file.md5 else f"now {current[:12]}"

    def read_text(self, file: LockedFile) -> str | None:
        """Its recorded content, from the workspace or DVC's cache; None where neither has it."""
        for path in (Path(file.path), self._get_cache_path(file.md5)):
            if path is not None and path.is_file() and compute_md5(path) == file.md5:
                return path.read_text(encoding="utf-8")
        return None

    def list_folder(self, folder: LockedFile) -> dict[str, str]:
        """md5 of each file of a recorded folder, by path below it; empty where DVC's cache no
        longer has the list.
        """
        path = self._get_cache_path(folder.md5) if folder.md5.endswith(".dir") else None
        if path is None or not path.is_file():
            return {}
        return {
            entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))
        }

    def _get_cache_path(self, md5: str) -> Path | None:
        return (
            Path(self._repo.cache.local.oid_to_path(md5))
            if self._repo is not None and md5
            else None
        )


def compute_md5(path: Path) -> str:
    """Of a file's bytes, as DVC records it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
