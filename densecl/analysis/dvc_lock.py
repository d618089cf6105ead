"""Read dvc.lock: hashes of the code, data and models that produced an experiment."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from densecl import paths
from densecl.errors import DenseclError


@dataclass(frozen=True)
class LockedFile:
    """A file or folder with the md5 that DVC recorded; a folder's ends in .dir."""

    path: str
    md5: str
    files: int | None = None  # of a folder

    @property
    def is_code(self) -> bool:
        return PurePosixPath(self.path).parts[0] in paths.CODE_FOLDERS


@dataclass(frozen=True)
class LockedStage:
    name: str
    reads: tuple[LockedFile, ...]
    writes: tuple[LockedFile, ...]


@dataclass(frozen=True)
class DvcLock:
    """md5 by path; empty if dvc.lock does not exist."""

    code: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # stage without its set, mode or seed -> files
    sources: dict[str, str] = field(
        default_factory=dict
    )  # set -> md5 of what its images are tracked by
    outs: dict[str, str] = field(default_factory=dict)


MD5 = re.compile(r"([0-9a-f]{32}(\.dir)?)?")


MAX_BRACKETS = 5000  # a parser in C takes the process with it at some 20,000 within each other
DEEP_LIST = re.compile(r"(?:[-?] +){1000}")


def check_nesting(text: str, source: str) -> None:
    """DenseclError names the `source` of YAML that may be nested too deeply for a parser in C."""
    if text.count("[") + text.count("{") > MAX_BRACKETS or DEEP_LIST.search(text):
        raise DenseclError(f"{source}: found too many brackets or lists, expected a file of DVC")


def parse_stages(text: str, source: str) -> dict[str, LockedStage]:
    """The stages of a dvc.lock by name; DenseclError names the `source` of a text that is none."""

    def parse_files(entries: list[dict[str, Any]]) -> tuple[LockedFile, ...]:
        files = tuple(LockedFile(e["path"], e.get("md5") or "", e.get("nfiles")) for e in entries)
        for file in files:
            if not MD5.fullmatch(file.md5):
                raise TypeError(f"{file.path}: md5 {file.md5}")
        return files

    check_nesting(text, source)
    try:
        stages = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]  # noqa: S506 - a SafeLoader
        return {
            name: LockedStage(
                name, parse_files(stage.get("deps", ())), parse_files(stage.get("outs", ()))
            )
            for name, stage in stages.items()
        }
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise DenseclError(
            f"{source}: found no stages as DVC writes them ({reason}); restore it from a commit "
            f"where it is whole (git checkout COMMIT -- {paths.DVC_LOCK}), or remove it and run "
            "`dvc repro`"
        ) from None


def read_lock(root: Path, source: str = str(paths.DVC_LOCK)) -> DvcLock:
    """What dvc.lock of a folder records; DenseclError names the `source` of one that is damaged."""
    path, lock = root / paths.DVC_LOCK, DvcLock()
    if not path.is_file():
        return lock
    text = path.read_text(encoding="utf-8", errors="replace")
    for name, stage in parse_stages(text, source).items():
        kind, _, unit = name.partition("@")
        lock.outs.update((file.path, file.md5) for file in stage.writes)
        for file in stage.reads:
            if file.is_code:
                lock.code.setdefault(kind, {})[file.path] = file.md5
            elif kind == "prepare" and file.path != str(paths.plan_file(unit)):
                lock.sources.setdefault(unit, file.md5)  # the second is the training set's
    return lock


def find_changed_outs(lock: DvcLock, root: Path) -> list[str]:
    """Evaluations, predictions and manifests under `root` whose hash differs from the lock file."""
    folders = (paths.EVALUATION, paths.PREDICTIONS, paths.MANIFESTS)
    return [
        path
        for path, md5 in lock.outs.items()
        if any(PurePosixPath(path).is_relative_to(folder) for folder in folders)
        and (root / path).exists()
        and _hash_out(root / path) != md5
    ]


def _hash_out(path: Path) -> str:
    if path.is_file():
        return compute_md5(path)
    files = (file for file in path.rglob("*") if file.is_file())
    return hash_folder({file.relative_to(path).as_posix(): compute_md5(file) for file in files})


def hash_folder(md5s: Mapping[str, str]) -> str:
    """Of a folder, as DVC records it: of the list of its files, by path below the folder."""
    entries = [{"md5": md5, "relpath": path} for path, md5 in sorted(md5s.items())]
    content = json.dumps(entries).encode()
    return hashlib.md5(content, usedforsecurity=False).hexdigest() + ".dir"


def compute_md5(path: Path) -> str:
    """Of a file's bytes, as DVC records it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
