"""Locate an experiment: the workspace, a folder of reports, or a git revision (which a DVC
experiment is).
"""

import shutil
from dataclasses import replace
from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import find_changed_outs, read_lock
from densecl.compare.read import Origin
from densecl.compare.revisions import RevisionNotFoundError, fetch_revision
from densecl.compare.staleness import find_stale_in_folder
from densecl.datasets.storage.filenames import to_printable
from densecl.errors import DenseclError
from densecl.pages.formatting import clip_list
from densecl.runtime.git import run_git

WORKSPACE = "workspace"


def resolve_origin(given: str, scratch: Path) -> Origin:
    """The experiment's folder in the layout of a project; fetched files are written to
    `scratch`.
    """
    folder, name = Path(given), to_printable(given)  # names may hold any bytes
    if name == WORKSPACE:
        return _read_folder_origin(name, Path(), scratch)
    if not name.strip():  # Path("") is the workspace: an unset variable would compare it unasked
        raise DenseclError(_describe_unknown(given))
    if (folder / paths.EVALUATION).is_dir():
        return _read_folder_origin(name, folder, scratch)
    if (folder / paths.EVALUATION.name).is_dir():
        return _read_folder_origin(name, _resolve_project(folder, scratch), scratch)
    if not _is_utf8(given):  # DVC and git's library ask for text
        raise DenseclError(_describe_unknown(given))
    if not run_git("rev-parse", "--git-dir"):
        reason = "here is no git repository" if shutil.which("git") else "git is not in PATH"
        raise DenseclError(f"{_describe_unknown(given)}; {reason}")
    try:
        commit, (stale, unchecked), notes = fetch_revision(given, scratch)
    except RevisionNotFoundError as error:
        raise DenseclError(f"{_describe_unknown(given)} ({error})") from None
    return Origin(
        name,
        scratch,
        commit,
        notes=tuple(notes),
        stale=tuple(stale),
        unchecked=tuple(unchecked),
    )


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describe_unknown(given: str) -> str:
    is_folder = bool(given.strip()) and Path(given).is_dir()
    description = f"a folder without {paths.EVALUATION}" if is_folder else "no such folder"
    expected = f"{WORKSPACE}, a folder of reports, a git revision or a DVC experiment"
    name = to_printable(given) if given.strip() else "''"
    return f"{name}: found {description} and no such revision; expected {expected}"


def _resolve_project(folder: Path, scratch: Path) -> Path:
    """The project that contains a reports folder; a folder of another name (a CI artifact) is
    linked as `reports`.
    """
    if folder.resolve().name == paths.REPORTS.name:
        return folder.resolve().parent
    scratch.mkdir(parents=True)
    (scratch / paths.REPORTS).symlink_to(folder.resolve(), target_is_directory=True)
    return scratch


def _read_folder_origin(name: str, root: Path, scratch: Path) -> Origin:
    """An experiment in a folder, with its commit if git tracks the folder as a project."""
    changed = find_changed_outs(read_lock(root), root)
    stale = [f"{clip_list(changed, 3)} (not as in {paths.DVC_LOCK})"] if changed else []
    notes: list[str] = []
    unchecked: list[str] = []
    if not (root / paths.DVC_LOCK).is_file():
        notes.append(
            f"there is no {paths.DVC_LOCK}, so it is not known whether its params and code made "
            "these results"
        )
    elif (root / paths.DVC_YAML).is_file():
        found = find_stale_in_folder(root, scratch / "dvc")
        stale, unchecked = stale + found.stale, found.unchecked
    else:
        unchecked.append(str(paths.DVC_YAML))
    origin = Origin(name, root, notes=tuple(notes), stale=tuple(stale), unchecked=tuple(unchecked))
    if not run_git("ls-files", str(paths.PARAMS), str(paths.DVC_YAML), root=root):
        return origin
    origin = replace(origin, commit=run_git("rev-parse", "HEAD", root=root).strip())
    # `git status` runs filters and hooks that a repository's own configuration names: never those
    # of a folder from elsewhere.
    if _find_repository(root) != _find_repository(Path()):
        notes.append(
            "its folder is another repository's, so changes that are in no commit were not looked "
            "for"
        )
        return replace(origin, notes=tuple(notes))
    status = run_git("status", "--porcelain", "--untracked-files=no", ".", root=root)
    return replace(origin, dirty=tuple(line[3:] for line in status.splitlines()))


def _find_repository(root: Path) -> Path:
    """The folder of the repository's objects, shared by all of its worktrees."""
    return (root / run_git("rev-parse", "--git-common-dir", root=root).strip()).resolve()
