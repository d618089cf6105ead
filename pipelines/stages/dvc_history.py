"""What DVC recorded of the stages, now or at a commit, and how the workspace differs from it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import LockedFile, LockedStage, compute_md5, parse_stages
from densecl.runtime.git import run_git
from pipelines.stages.dvc_graph import open_repo

LOCK_FILE = str(paths.DVC_LOCK)


@dataclass(frozen=True)
class LockSnapshot:
    """The stages of one dvc.lock by name, without planning stages, whose outs are params."""

    source: str  # which dvc.lock
    git: str  # the commit it belongs to; "" where none holds it
    stages: dict[str, LockedStage]


def iter_snapshots(md5: str = "", revision: str = "") -> Iterator[LockSnapshot]:
    """dvc.lock of the workspace, of a commit, and of the commits that added or removed the md5, in
    that order.
    """
    if paths.DVC_LOCK.exists():
        text = paths.DVC_LOCK.read_text(encoding="utf-8", errors="replace")
        head = run_git("rev-parse", "HEAD").strip()
        if head and run_git("show", f"HEAD:{LOCK_FILE}") != text:
            head += "+"
        yield _parse_snapshot(text, f"{LOCK_FILE} of the workspace", head)
    commits = [revision.removesuffix("+")] if revision else []
    if md5:
        commits += run_git("log", "--all", "--format=%H", f"-S{md5}", "--", LOCK_FILE).split()
    for commit in dict.fromkeys(commits):
        if text := run_git("show", f"{commit}:{LOCK_FILE}"):
            yield _parse_snapshot(text, f"{LOCK_FILE} of commit {commit[:12]}", commit)


def _parse_snapshot(text: str, source: str, commit: str) -> LockSnapshot:
    stages = parse_stages(text, source)
    return LockSnapshot(source, commit, {n: s for n, s in stages.items() if n != "plan"})


class WorkspaceState:
    """Current files of the project, and DVC's cache."""

    def __init__(self) -> None:
        self._repo = open_repo()
        self._md5s: dict[str, str] = {}

    def describe_change(self, file: LockedFile) -> str:
        """Text on how the file differs from its record; "" if it does not."""
        if not Path(file.path).exists():
            return "no longer there"
        if file.path not in self._md5s:
            self._md5s[file.path] = self._compute_md5(file.path)
        current = self._md5s[file.path]
        return "" if current == file.md5 else f"now {current[:12]}"

    def _compute_md5(self, path: str) -> str:
        """md5 as DVC computes it, using its state of unchanged folders."""
        from dvc.fs import LocalFileSystem
        from dvc_data.hashfile.build import build

        _, _, content = build(
            self._repo.cache.local,
            str(Path(path).absolute()),
            LocalFileSystem(),
            "md5",
            dry_run=True,
            ignore=self._repo.dvcignore,
        )
        return str(content.hash_info.value)

    def read_text(self, file: LockedFile) -> str | None:
        """Recorded content, from the workspace or DVC's cache; None if neither has it."""
        for path in (Path(file.path), self._get_cache_path(file)):
            if path.is_file() and compute_md5(path) == file.md5:
                return path.read_text(encoding="utf-8")
        return None

    def list_folder(self, folder: LockedFile) -> dict[str, str]:
        """md5 of each file of a recorded folder by relative path; empty for a file, or if DVC's
        cache lacks the listing.
        """
        path = self._get_cache_path(folder)
        if not folder.md5.endswith(".dir") or not path.is_file():
            return {}
        return {
            entry["relpath"]: entry["md5"] for entry in json.loads(path.read_text(encoding="utf-8"))
        }

    def _get_cache_path(self, file: LockedFile) -> Path:
        return Path(self._repo.cache.local.oid_to_path(file.md5))
