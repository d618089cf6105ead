"""What dvc.lock tells: the code, the data and the models that an experiment's files were made
with.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import yaml

from densecl import paths
from densecl.errors import DenseclError


@dataclass(frozen=True)
class DvcLock:
    """md5 by path; empty where there is no dvc.lock."""

    code: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # stage without its set, mode or seed -> files
    sources: dict[str, str] = field(
        default_factory=dict
    )  # set -> md5 of what its images are tracked by
    outs: dict[str, str] = field(default_factory=dict)


def read_lock(root: Path) -> DvcLock:
    path = root / paths.DVC_LOCK
    if not path.is_file():
        return DvcLock()
    try:
        text = path.read_text(encoding="utf-8")
        stages = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]  # noqa: S506 - a SafeLoader
        return _parse_lock(stages)
    except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DenseclError(
            f"{paths.DVC_LOCK}: cannot be read ({' '.join(str(error).split())[:120]}); expected "
            f"what "
            f"`dvc repro` writes"
        ) from None


def _parse_lock(stages: dict[str, dict[str, list[dict[str, str]]]]) -> DvcLock:
    lock = DvcLock()
    for stage in stages.values():
        for out in stage.get("outs", []):
            lock.outs[out["path"]] = out.get("md5", "")
    for name, stage in stages.items():
        stage_name, _, unit = name.partition("@")
        for dep in stage.get("deps", []):
            path, md5 = dep["path"], dep.get("md5", "")
            if PurePosixPath(path).parts[0] in paths.CODE_FOLDERS:
                lock.code.setdefault(stage_name, {})[path] = md5
            elif stage_name == "prepare" and path != str(paths.plan_file(unit)):
                lock.sources.setdefault(unit, md5)  # the first: the second is the training set's
    return lock


def find_changed_outs(lock: DvcLock, root: Path) -> list[str]:
    """Files of evaluations, predictions and manifests in `root` that are not those of its lock."""
    folders = (paths.EVALUATION, paths.PREDICTIONS, paths.MANIFESTS)
    hashes = {
        path: md5
        for path, md5 in lock.outs.items()
        if any(PurePosixPath(path).is_relative_to(folder) for folder in folders)
    }
    return [
        path
        for path, md5 in hashes.items()
        if (root / path).is_file() and _compute_md5(root / path) != md5
    ]


def _compute_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
