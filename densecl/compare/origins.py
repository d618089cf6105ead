"""Locate an experiment: the workspace, a folder of reports, or a git revision (which a DVC
experiment is).
"""

from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import find_changed_outs, read_lock
from densecl.compare.read import Origin
from densecl.compare.revisions import RevisionNotFoundError, fetch_revision
from densecl.errors import DenseclError
from densecl.pages.formatting import clip_list
from densecl.runtime.git import run_git

WORKSPACE = "workspace"


def resolve_origin(name: str, scratch: Path) -> Origin:
    """The experiment's folder in the layout of a project; fetched files are written to
    `scratch`.
    """
    if name == WORKSPACE:
        return _read_folder_origin(name, Path())
    folder = Path(name)
    if not name.strip():  # Path("") is the workspace: an unset variable would compare it unasked
        raise DenseclError(_describe_unknown("''"))
    if (folder / paths.EVALUATION).is_dir():
        return _read_folder_origin(name, folder)
    if (folder / paths.EVALUATION.name).is_dir():
        return _read_folder_origin(name, _resolve_project(folder, scratch))
    if not run_git("rev-parse", "--git-dir"):
        raise DenseclError(_describe_unknown(name) + "; here is no git repository")
    try:
        commit, notes = fetch_revision(name, scratch)
    except RevisionNotFoundError as error:
        raise DenseclError(f"{_describe_unknown(name)} ({error})") from None
    return Origin(name, scratch, commit, notes=tuple(notes))


def _describe_unknown(name: str) -> str:
    folder = Path(name)
    description = f"a folder without {paths.EVALUATION}" if folder.is_dir() else "no such folder"
    expected = f"{WORKSPACE}, a folder of reports, a git revision or a DVC experiment"
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


def _read_folder_origin(name: str, root: Path) -> Origin:
    """An experiment in a folder, with its commit if git tracks the folder as a project."""
    stale = find_changed_outs(read_lock(root), root)
    notes = []
    if stale:
        notes.append(
            f"{clip_list(stale, 1)} {'differ' if len(stale) > 1 else 'differs'} from dvc.lock, so "
            f"the code, data and models named below may not be what made them"
        )
    if not run_git(
        "ls-files", str(paths.PARAMS), str(paths.DVC_LOCK.with_suffix(".yaml")), root=root
    ):
        return Origin(name, root, notes=tuple(notes))
    commit = run_git("rev-parse", "HEAD", root=root).strip()
    # `git status` runs filters and hooks that a repository's own configuration names: never those
    # of a folder from elsewhere.
    if _find_repository(root) != _find_repository(Path()):
        notes.append(
            "its folder is another repository's, so changes that are in no commit were not looked "
            "for"
        )
        return Origin(name, root, commit, notes=tuple(notes))
    status = run_git("status", "--porcelain", "--untracked-files=no", ".", root=root)
    dirty = tuple(line[3:] for line in status.splitlines())
    return Origin(name, root, commit, dirty, tuple(notes))


def _find_repository(root: Path) -> Path:
    """The folder of the repository's objects, shared by all of its worktrees."""
    return (root / run_git("rev-parse", "--git-common-dir", root=root).strip()).resolve()
