"""Fetch the files of an experiment at a git revision from DVC's cache or remote, without a
checkout.
"""

import functools
import itertools
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from densecl import paths
from densecl.analysis.dvc_lock import check_nesting, compute_md5, hash_folder, read_lock
from densecl.compare.staleness import (
    Files,
    Staleness,
    find_stale_stages,
    list_tree,
    shorten_paths,
)
from densecl.errors import DenseclError
from densecl.pages.formatting import clip_list
from densecl.runtime.git import run_git

THREADS = 8  # a remote answers slowly, and at once
CONTROL_SUFFIX = ".control.parquet"


class RevisionNotFoundError(DenseclError):
    """A name unknown to git; the message is git's."""


class FetchedRevision(NamedTuple):
    commit: str
    staleness: Staleness
    notes: list[str]


def fetch_revision(name: str, root: Path) -> FetchedRevision:
    """Write the evaluations, predictions, manifests, costs, plan and model configs of a revision
    below `root`.

    RevisionNotFoundError where git knows none of that name. What is in dvc.lock but neither in the
    cache nor in the remote is an error where the comparison needs it, else a note.
    """
    with _open_revision(name) as (commit, fs):
        where = f"of commit {commit[:12]}"
        if not _copy_texts(fs.repo, root, name, where):
            raise DenseclError(
                f"{name}: no {paths.DVC_LOCK} in commit {commit[:12]}, and only it tells what was "
                f"made there; "
                f"commit it after `dvc repro` (git add {paths.DVC_LOCK})"
            )
        locked_outs = read_lock(root, f"{name}: {paths.DVC_LOCK} {where}").outs
        current_outs = {"/".join(out.index_key[1]) for out in fs.repo.index.outs}
        outs = {
            path: md5 for path, md5 in locked_outs.items() if path in current_outs
        }  # no leftovers of stages that are no more
        md5s = dict(_list_needed(fs, outs))
        staleness = _find_stale_stages(fs)
        unavailable = _fetch_files(fs, list(md5s), root)
    needed = [path for path in unavailable if _is_below(path, paths.EVALUATION, paths.PREDICTIONS)]
    if needed:
        raise DenseclError(
            f"{name}: {clip_list(needed, 1)}: in {paths.DVC_LOCK} of commit {commit[:12]}, but "
            "neither in DVC's cache nor in its remote; `dvc push` where it was made (`dvc exp "
            "push` for an experiment), or `dvc fetch` with that remote"
        )
    if damaged := [
        path
        for path, md5 in md5s.items()
        if md5 and (root / path).exists() and compute_md5(root / path) != md5
    ]:
        raise DenseclError(
            f"{name}: {clip_list(damaged, 1)}: DVC's stored copy does not match the md5 in "
            f"{paths.DVC_LOCK} of commit {commit[:12]}; delete the copy in the cache or the "
            "remote, then fetch or push it again"
        )
    absent = f"{clip_list(unavailable, 1)}: neither in DVC's cache nor in its remote"
    return FetchedRevision(commit, staleness, [absent] if unavailable else [])


def _copy_texts(repo: Any, root: Path, name: str, where: str) -> bool:
    """Copy dvc.lock and params.yaml as git holds them; they and dvc.yaml are checked before DVC
    reads them. False without dvc.lock; DVC's own view lacks one that it cannot read.
    """
    root.mkdir(parents=True, exist_ok=True)
    for path in (paths.DVC_LOCK, paths.PARAMS, paths.DVC_YAML):
        place = repo.fs.join(repo.root_dir, str(path))
        if repo.fs.exists(place):
            with repo.fs.open(place, mode="rb") as file:
                content: bytes = file.read()
            check_nesting(content.decode("utf-8", "replace"), f"{name}: {path} {where}")
            if path != paths.DVC_YAML:
                (root / path).write_bytes(content)
    return (root / paths.DVC_LOCK).exists()


def _find_stale_stages(fs: Any) -> Staleness:
    """Of the revision that the file system shows."""

    @functools.cache
    def list_sources(path: str) -> Files:
        return list_tree(fs.repo.fs, fs.repo.dvcignore, fs.repo.root_dir, path)

    @functools.cache
    def list_out(path: str, md5: str) -> Files | None:
        files = _list_folder(fs, path, md5)
        return None if path in files else files

    return find_stale_stages(fs.repo, list_sources, list_out)


def _is_below(path: str, *folders: Path) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)


@contextmanager
def _open_revision(name: str) -> Iterator[tuple[str, Any]]:
    """The commit and a file system over its git and DVC files. Neither the workspace nor its lock
    is touched.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import DVCFileSystem
    from dvc.repo import Repo
    from dvc.repo.brancher import switch
    from dvc.scm import RevError, resolve_rev

    try:
        with Repo(".") as repo:
            try:
                commit = resolve_rev(repo.scm, name)
            except RevError as error:
                raise RevisionNotFoundError(" ".join(str(error).split())) from None
            if (kind := run_git("cat-file", "-t", commit).strip()) not in ("commit", ""):
                raise RevisionNotFoundError(f"{name}: found a {kind} of git, expected a commit")
            config = repo.config
            with switch(repo, commit):
                repo.__dict__["config"] = (
                    config  # the remotes of today: the commit may know none, or one that moved
                )
                yield commit, DVCFileSystem(repo=repo)
    except DvcException as error:
        raise DenseclError(f"{name}: DVC: {shorten_paths(error, Path('/'))}") from None


def _list_needed(fs: Any, outs: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Files to fetch, with the md5 of those that the comparison rests on, else "". Predictions on
    controls are not compared.
    """
    for path, md5 in outs.items():
        if path == str(paths.PLANS):
            yield str(paths.plan_file("report")), ""
        elif path == str(paths.COST):
            yield path, ""
        elif _is_below(path, paths.MANIFESTS, paths.EVALUATION, paths.PREDICTIONS):
            files = _list_folder(fs, path, md5) if md5.endswith(".dir") else {path: md5}
            yield from (file for file in files.items() if not file[0].endswith(CONTROL_SUFFIX))
    models = (path for path in outs if _is_below(path, paths.MODELS))
    # One class list is that of all.
    yield from ((f"{path}/config.json", "") for path in itertools.islice(models, 1))


def _list_folder(fs: Any, folder: str, md5: str) -> dict[str, str]:
    """The md5 of each file of a folder; the folder alone if no storage has the list."""
    from dvc_data.index import DataIndexDirError

    try:
        files = fs.fs.find(folder, detail=True)
    except (FileNotFoundError, DataIndexDirError):
        return {folder: ""}
    md5s = {path.lstrip("/"): info["dvc_info"].get("md5") for path, info in files.items()}
    if not md5s or None in md5s.values():  # the latter: dvc.lock has it of no stage of dvc.yaml
        return {folder: ""}
    if hash_folder({path.removeprefix(f"{folder}/"): file for path, file in md5s.items()}) != md5:
        raise DenseclError(
            f"{folder}: DVC's stored list of its files does not match the md5 {md5} in "
            f"{paths.DVC_LOCK}; delete {md5[:2]}/{md5[2:]} in the cache or the remote, then fetch "
            "or push it again"
        )
    return md5s


def _fetch_files(fs: Any, files: list[str], root: Path) -> list[str]:
    """Fetch files; return those that no storage has."""
    with ThreadPoolExecutor(THREADS) as pool:
        fetched = pool.map(lambda path: _fetch_file(fs, path, root), files)
        return [path for path, is_there in zip(files, fetched, strict=True) if not is_there]


def _fetch_file(fs: Any, path: str, root: Path) -> bool:
    """Fetch one file; False if no storage has it. Downloads stay in the cache, as after `dvc
    fetch`.
    """
    from dvc_data.index import DataIndexDirError

    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        fs.fs.get_file(path, str(target), cache=True)
    except (FileNotFoundError, DataIndexDirError):
        return False
    except (
        Exception
    ) as error:  # of a remote: no credentials, no connection; every kind of remote has its own
        message = " ".join(str(error).split())[:200]
        raise DenseclError(
            f"{path}: DVC's remote failed ({type(error).__name__}: {message}); try `dvc fetch`"
        ) from error
    return True
