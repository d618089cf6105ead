"""The files of an experiment as a git revision holds them, from DVC's cache or remote; nothing is
checked out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.analysis.dvc_lock import changed_outs, read_lock
from densecl.errors import DenseclError

NEEDED = (paths.EVALUATION, paths.PREDICTIONS)
THREADS = 8  # a remote answers slowly, and at once


class NoRevisionError(DenseclError):
    """A name that git does not know; the message is git's."""


def fetch(name: str, place: Path) -> tuple[str, list[str]]:
    """The revision's commit; its evaluations, predictions, manifests, costs, plan and model config
    lie below `place`.

    NoRevisionError where git knows none of that name. What is in dvc.lock but neither in the cache
    nor in the remote is an error where the comparison needs it, else a note.
    """
    with _revision(name) as (commit, fs):
        if not fs.exists(str(paths.LOCK)):
            raise DenseclError(
                f"{name}: no {paths.LOCK} in commit {commit[:12]}, and only it tells what was "
                f"made there; "
                f"commit it after `dvc repro` (git add {paths.LOCK})"
            )
        for path in (paths.LOCK, paths.PARAMS):
            if fs.exists(str(path)):
                _get(fs, str(path), place)
        known = {"/".join(out.index_key[1]) for out in fs.repo.index.outs}
        outs = [
            path for path in read_lock(place).outs if path in known
        ]  # no leftovers of stages that are no more
        lost = _get_all(fs, list(_wanted(outs)), place)
    needed = [path for path in lost if any(Path(path).is_relative_to(folder) for folder in NEEDED)]
    if needed:
        raise DenseclError(
            f"{name}: {_first(needed)}: in {paths.LOCK} of commit {commit[:12]}, but neither in "
            f"DVC's cache nor in its remote; "
            "`dvc push` where it was made (`dvc exp push` for an experiment), or `dvc fetch` with "
            "that remote"
        )
    if damaged := changed_outs(read_lock(place), place):
        raise DenseclError(
            f"{name}: {_first(damaged)}: what DVC holds under its md5 in {paths.LOCK} of commit "
            f"{commit[:12]} "
            "has another; delete it in the cache or the remote, and fetch or push it again"
        )
    return commit, [f"{_first(lost)}: neither in DVC's cache nor in its remote"] if lost else []


def _first(files: Sequence[str]) -> str:
    return f"{files[0]} and {len(files) - 1} more" if len(files) > 1 else files[0]


@contextmanager
def _revision(name: str) -> Iterator[tuple[str, Any]]:
    """The commit and a file system of what git and DVC hold of it. Neither the workspace nor its
    lock is touched.
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
                raise NoRevisionError(" ".join(str(error).split())) from None
            here = repo.config
            with switch(repo, commit):
                repo.__dict__["config"] = (
                    here  # the remotes of today: the commit may know none, or one that moved
                )
                yield commit, DVCFileSystem(repo=repo)
    except DvcException as error:
        raise DenseclError(f"{name}: DVC: {' '.join(str(error).split())}") from None


def _wanted(outs: Iterable[str]) -> Iterator[str]:
    """Files to fetch; the controls of predictions are not compared."""
    whole = (paths.MANIFESTS, paths.EVALUATION, paths.PREDICTIONS)
    for path in map(Path, outs):
        if path == paths.PLAN:
            yield str(paths.plan("report"))
        elif path.is_relative_to(paths.TRAINING):
            yield str(path / "cost.json")
        elif any(path.is_relative_to(folder) for folder in whole) and not path.name.endswith(
            ".control.parquet"
        ):
            yield str(path)
    models = (path for path in outs if Path(path).is_relative_to(paths.MODELS))
    yield from (
        f"{path}/config.json" for path in itertools.islice(models, 1)
    )  # one class list is that of all


def _get_all(fs: Any, files: list[str], place: Path) -> list[str]:
    """Those that could not be had."""
    with ThreadPoolExecutor(THREADS) as pool:
        return [
            path
            for path, found in zip(
                files, pool.map(lambda p: _get(fs, p, place), files), strict=True
            )
            if not found
        ]


def _get(fs: Any, path: str, place: Path) -> bool:
    """False where no storage holds it; what comes over the net stays in the cache, as after `dvc
    fetch`.
    """
    from dvc_data.index import DataIndexDirError

    target = place / path
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        fs.fs.get_file(path, str(target), cache=True)
    except (FileNotFoundError, DataIndexDirError):
        return False
    except (
        Exception
    ) as error:  # of a remote: no credentials, no connection; every kind of remote has its own
        text = " ".join(str(error).split())[:200]
        raise DenseclError(
            f"{path}: DVC's remote failed ({type(error).__name__}: {text}); try `dvc fetch`"
        ) from error
    return True
