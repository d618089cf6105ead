"""Stages whose entry in dvc.lock was not made from the files beside it: found as `dvc status` does,
from dvc.yaml, dvc.lock and the committed files, without a checkout.
"""

import functools
import hashlib
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from densecl import paths
from densecl.analysis.dvc_lock import LockedStage, compute_md5, hash_folder, parse_stages
from densecl.errors import DenseclError
from densecl.pages.formatting import clip_list

if TYPE_CHECKING:
    from dvc.repo import Repo

MAX_NAMED_STAGES = 12
SUBMODULE = 0o160000  # git's mode of one
DVC_FILES = ("*.yaml", "*.yml", "*.json", "*.toml", "dvc.lock", ".dvcignore")  # that DVC reads

Files = Mapping[str, str]  # path -> md5
ListSources = Callable[[str], Files]  # committed files at or below a path
ListOut = Callable[[str, str], Files | None]  # of an out that is a folder; None: not known
LacksCode = Callable[[str], bool]  # whether a folder of code is left out as a whole


@dataclass(frozen=True)
class _Out:
    md5: str | None  # None: dvc.lock has none
    is_cached: bool


class _Unchecked(NamedTuple):
    out: str


class Staleness(NamedTuple):
    stale: list[str]  # one text per cause, with the stages that it makes stale
    unchecked: list[str]  # outs whose files some stage reads and which are not there


def find_stale_stages(
    repo: "Repo",
    list_sources: ListSources,
    list_out: ListOut,
    lacks_code: LacksCode = lambda _: False,
) -> Staleness:
    """Both lists are empty where dvc.lock belongs to the files. What is neither committed nor made
    by a stage, such as images, is not looked at.
    """
    from dvc.stage import PipelineStage

    outs = {
        _get_path(repo, out): _Out(out.hash_info.value, out.use_cache)
        for out in repo.index.outs
        if out.protocol == "local"
    }
    locked = _read_locked_stages(repo)
    stages = defaultdict[str, list[str]](list)
    unchecked = dict[str, None]()
    for stage in repo.index.stages:
        if isinstance(stage, PipelineStage) and stage.path_in_repo == str(paths.DVC_YAML):
            causes = (
                *_find_causes(repo, stage, outs, list_sources, list_out, lacks_code),
                *_find_removed(stage, locked),
            )
            for cause in causes:
                if isinstance(cause, _Unchecked):
                    unchecked[cause.out] = None
                else:
                    stages[cause].append(stage.name)
    stale = [
        f"{clip_list(sorted(set(names)), MAX_NAMED_STAGES)} ({cause})"
        for cause, names in stages.items()
    ]
    return Staleness(stale, list(unchecked))


def _find_causes(
    repo: "Repo",
    stage: Any,
    outs: Mapping[str, _Out],
    list_sources: ListSources,
    list_out: ListOut,
    lacks_code: LacksCode,
) -> Iterator[str | _Unchecked]:
    """Why a stage is stale: its command, or a dependency with another md5 than recorded."""
    from dvc.dependency import ParamsDependency

    if not all(out.hash_info for out in stage.outs):
        yield f"not in {paths.DVC_LOCK}"
        return
    if stage.cmd_changed:
        yield f"another command in {paths.DVC_YAML}"
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            if dep.status():
                yield f"params in {dep.def_path}"
        elif dep.protocol == "local" and (path := _get_path(repo, dep)):
            try:
                md5 = _hash_path(path, outs, list_sources, list_out, lacks_code)
            except LookupError as error:
                yield _Unchecked(str(error))
                continue
            if md5 is not None and md5 != dep.hash_info.value:
                yield path


def _read_locked_stages(repo: "Repo") -> Mapping[str, LockedStage]:
    place = repo.fs.join(repo.root_dir, str(paths.DVC_LOCK))
    if not repo.fs.isfile(place):
        return {}
    return parse_stages(repo.fs.cat_file(place).decode("utf-8", "replace"), str(paths.DVC_LOCK))


def _find_removed(stage: Any, locked: Mapping[str, LockedStage]) -> Iterator[str]:
    """What dvc.lock records of a stage and dvc.yaml no longer names there; DVC's own status says
    nothing of it.
    """
    from dvc.dependency import ParamsDependency

    record = locked.get(stage.name)
    entries = (e for e in (*stage.deps, *stage.outs) if not isinstance(e, ParamsDependency))
    named = {entry.def_path.rstrip("/") for entry in entries}
    for file in (*record.reads, *record.writes) if record else ():
        if file.path.rstrip("/") not in named:
            yield (
                f"{paths.DVC_LOCK} has {file.path} of it, {paths.DVC_YAML} no longer names that; "
                "only `dvc repro --force` or `dvc commit` renews the entry"
            )


def _get_path(repo: "Repo", entry: Any) -> str:
    """Relative to the project's root; "" outside of it."""
    path = str(repo.fs.relpath(entry.fs_path, repo.root_dir))
    return "" if path.startswith("..") else path


def _overlap(a: str, b: str) -> bool:
    return PurePosixPath(a).is_relative_to(b) or PurePosixPath(b).is_relative_to(a)


def _hash_path(
    path: str,
    outs: Mapping[str, _Out],
    list_sources: ListSources,
    list_out: ListOut,
    lacks_code: LacksCode,
) -> str | None:
    """md5 of a path from committed files and from the outs at, above and below it; None where it
    has none. LookupError names an out whose files are needed and not known.
    """
    if path in outs:
        return outs[path].md5
    made = {name: out for name, out in outs.items() if _overlap(name, path)}
    files = {**list_sources(path)}
    for name, out in made.items():
        if out.md5 is None:
            return None
        if not out.md5.endswith(".dir"):
            files[name] = out.md5
            continue
        listed = list_out(name, out.md5)
        if listed is None:
            if out.is_cached:
                raise LookupError(name)
            return None  # of links to the user's files
        files.update(listed)
    if path in files:
        return files[path]
    below = {
        str(PurePosixPath(file).relative_to(path)): md5
        for file, md5 in files.items()
        if PurePosixPath(file).is_relative_to(path)
    }
    if below or made:  # an out may be an empty folder
        return hash_folder(below)
    folder = PurePosixPath(path).parts[0]  # deleted, renamed or hidden by .dvcignore
    return "no file" if folder in paths.CODE_FOLDERS and not lacks_code(folder) else None


def list_tree(fs: Any, ignore: Any, root: str, path: str) -> Files:
    """md5 of a file, or of the files of a folder without what .dvcignore names, by path relative
    to the root; empty where there is none. DenseclError names a submodule: git holds no file of it.
    """
    place = fs.join(root, path)
    found = [place] if fs.isfile(place) else [*ignore.find(fs, place)] if fs.isdir(place) else []
    for file in found:
        if fs.info(file).get("mode") == SUBMODULE:
            raise DenseclError(
                f"{PurePosixPath(file).relative_to(root)}: found a git submodule, whose files a "
                "revision does not hold; compare folders instead, where they are checked out"
            )
    return {
        str(PurePosixPath(file).relative_to(root)): hashlib.md5(
            fs.cat_file(file), usedforsecurity=False
        ).hexdigest()
        for file in found
    }


def find_stale_in_folder(root: Path, scratch: Path) -> Staleness:
    """As `find_stale_stages`, of a project in a folder: code and params.yaml are hashed there.

    DVC reads a copy of its files without the folder's own configuration, which may name other
    places to write to.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import LocalFileSystem
    from dvc.ignore import DvcIgnoreFilter
    from dvc.repo import Repo

    scratch.mkdir(parents=True)
    for file in {file for pattern in DVC_FILES for file in root.glob(pattern) if file.is_file()}:
        shutil.copyfile(file, scratch / file.name)
    fs, place = LocalFileSystem(), str(root.resolve())
    ignore = DvcIgnoreFilter(fs, place)

    @functools.cache
    def list_sources(path: str) -> Files:
        is_source = PurePosixPath(path).parts[0] in (*paths.CODE_FOLDERS, str(paths.PARAMS))
        return list_tree(fs, ignore, place, path) if is_source else {}

    @functools.cache
    def list_out(path: str, md5: str) -> Files | None:
        folder = root / path
        found = [file for file in folder.rglob("*") if file.is_file() and file.name != ".gitignore"]
        md5s = {file.relative_to(folder).as_posix(): compute_md5(file) for file in found}
        is_whole = hash_folder(md5s) == md5
        return {f"{path}/{name}": file for name, file in md5s.items()} if is_whole else None

    try:
        with Repo(str(scratch), uninitialized=True) as repo:
            # The artifact of a CI may come without code.
            return find_stale_stages(
                repo, list_sources, list_out, lambda folder: not (root / folder).exists()
            )
    except DvcException as error:
        raise DenseclError(f"{root}: DVC: {shorten_paths(error, scratch)}") from None


def shorten_paths(error: Exception, folder: Path) -> str:
    """An error of DVC's in one line, with paths relative to the project instead of to the working
    folder: DVC reads it as a copy, or out of git.
    """
    prefix = os.path.relpath(folder.resolve()).rstrip("/") + "/"
    return " ".join(str(error).split()).replace(prefix, "")
