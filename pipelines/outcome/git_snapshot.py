"""A retraining's params, dvc.lock and small reports in git, on a commit of their own: so that each
can be checked out again.

Made with git's plumbing on an index of its own: HEAD, the user's branch, index and working tree
stay as they are, and nothing else that lies changed in the tree is swept along. No hook runs and
nothing is signed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from densecl import paths
from densecl.config.params import Params
from pipelines.outcome import csv_log
from pipelines.schemas import GateVerdict, RetrainingRecord

SNAPSHOT_FILES = (
    paths.PARAMS,
    Path("dvc.lock"),
    paths.CHAMPION_REPORTS / "dvc.yaml",
    paths.CHAMPION_REPORTS / "dvc.lock",
    paths.COMPARISON,
    paths.REPORT_TEXT,
    paths.REPORT_TABLE,
    paths.GATE,
    paths.CHANGES,
    paths.RETRAINING_LOG,
    paths.MODEL_CARD,
)
CELL_FOLDERS = (paths.EVALUATION, paths.CHAMPION_REPORTS / paths.EVALUATION.name)  # their *.json
MAX_BYTES = 2**20  # bytes of a file that is kept; a report beyond is none of the small ones
CODE_PATHS = ("densecl", "steps", "pipelines", "dvc.yaml", "pyproject.toml", "requirements.lock")
DEFAULT_COMMITTER = (
    "densecl retraining",
    "retraining@localhost",
)  # who commits where git knows nobody


def save_snapshot(params: Params, record: RetrainingRecord, verdict: GateVerdict) -> str | None:
    """The tag that holds this retraining; None, and a warning, where git could not: that fails no
    retraining.
    """
    if params.retraining.git == "off":
        return None
    try:
        return _create_snapshot(
            record,
            verdict,
            params.retraining.branch if params.retraining.git == "commit" else None,
        )
    except (OSError, ValueError, GitError) as error:
        _print_warning(f"{error}; this retraining is not kept in git")
        return None


class GitError(Exception):
    """Git's own last line."""


def _create_snapshot(record: RetrainingRecord, verdict: GateVerdict, branch: str | None) -> str:
    prefix = _run_git("rev-parse", "--show-prefix")
    head = _resolve_commit("HEAD")
    ref = f"refs/heads/{branch}" if branch else None
    if ref and (worktree := _run_git("for-each-ref", "--format=%(worktreepath)", ref)):
        _print_warning(
            f"retraining.branch: {branch} is checked out in {worktree}, and moving it would look "
            f"like changes there; only tagged"
        )
        ref = None
    tip = _resolve_commit(ref) if ref else None
    files, large = _collect_files()
    tag = format_tag(record)
    with tempfile.TemporaryDirectory() as folder:
        sources = {path: path.absolute() for path in files}
        if paths.RETRAINING_LOG not in large:
            rows = Path(folder, paths.RETRAINING_LOG.name)
            sources[paths.RETRAINING_LOG] = _copy_log(record.model_copy(update={"git": tag}), rows)
        tree = _write_tree(head, prefix, sources, Path(folder, "index"))
    parents = [tip, head] if tip and head and not _is_ancestor(head, tip) else [tip or head]
    commit = _create_commit(
        tree, [p for p in parents if p], _format_message(record, verdict, head, large)
    )
    _run_git("update-ref", f"refs/tags/{tag}", commit, "")  # "": there is none yet
    if ref:
        _move_branch(ref, commit, tip)
    return tag


def format_tag(record: RetrainingRecord) -> str:
    """`retraining/<start, UTC>-<outcome>`."""
    started = datetime.fromisoformat(record.started).astimezone(UTC)
    return f"retraining/{started:%Y%m%dT%H%M%SZ}-{record.outcome}"


def _collect_files() -> tuple[list[Path], list[Path]]:
    """Small ones, and those left out for their size."""
    files = [path for path in SNAPSHOT_FILES if path.is_file()]
    files += [path for folder in CELL_FOLDERS for path in sorted(folder.rglob("*.json"))]
    large = [path for path in files if path.stat().st_size > MAX_BYTES]
    return [path for path in files if path not in large], large


def _copy_log(record: RetrainingRecord, copy: Path) -> Path:
    """A copy of the lines of all retrainings, this one's too, which is written where its tag is
    known to hold.
    """
    if paths.RETRAINING_LOG.exists():
        shutil.copyfile(paths.RETRAINING_LOG, copy)
    csv_log.append_record(copy, record)
    return copy


def _write_tree(head: str | None, prefix: str, files: dict[Path, Path], index: Path) -> str:
    """HEAD's tree with these files, whose bytes lie where the values say, and without kept ones
    that are gone.
    """
    _run_git("read-tree", head or "--empty", index=index)
    removed = [path.as_posix() for path in (*SNAPSHOT_FILES, *CELL_FOLDERS)]
    _run_git(
        "--literal-pathspecs",
        "rm",
        "-rfq",
        "--cached",
        "--ignore-unmatch",
        "--",
        *removed,
        index=index,
    )
    # What lies under a link, as DVC may leave it, not the link; bytes as they are.
    names = "".join(f"{source}\n" for source in files.values())
    hashes = _run_git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names).split()
    entries = zip(hashes, files, strict=True)
    lines = "".join(f"100644 {digest}\t{prefix}{path.as_posix()}\0" for digest, path in entries)
    _run_git("update-index", "-z", "--index-info", index=index, stdin=lines)
    return _run_git("write-tree", index=index)


def _create_commit(tree: str, parents: list[str], message: str) -> str:
    parent_arguments = [word for parent in parents for word in ("-p", parent)]
    return _run_git(
        "commit-tree",
        "--no-gpg-sign",
        tree,
        *parent_arguments,
        stdin=message,
        committer=_get_committer(),
    )


def _move_branch(ref: str, commit: str, tip: str | None) -> None:
    try:
        _run_git("update-ref", "-m", "retraining", ref, commit, tip or "")
    except GitError as error:  # moved meanwhile, or a branch `retraining/...` is in its way
        _print_warning(f"retraining.branch: {error}; only tagged")


def _format_message(
    record: RetrainingRecord, verdict: GateVerdict, head: str | None, large: list[Path]
) -> str:
    lines = [f"Retraining of {record.started}: {record.outcome}", "", verdict.said, ""]
    if changed := _list_changed_code():
        what = f"differed from {head[:12]} in" if head else "is in no commit"
        lines += [f"The code of this retraining {what}: {', '.join(changed)}", ""]
    if large:
        lines += [f"Left out, above {MAX_BYTES} bytes: {', '.join(map(str, large))}", ""]
    trailers = {
        "Mode": f"{verdict.mode}, seed {verdict.seed}",
        "Version": record.version,
        "Champion": record.champion,
        "ZenML-run": record.zenml_run,
    }
    return "\n".join(lines + [f"{key}: {value}" for key, value in trailers.items() if value]) + "\n"


def _list_changed_code() -> list[str]:
    """Code files that are not as HEAD has them, new ones too."""
    entries = _run_git(
        "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *CODE_PATHS
    ).split("\0")
    return [entry[3:] for entry in entries if entry]


def _resolve_commit(revision: str) -> str | None:
    try:
        return _run_git("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}")
    except GitError:
        return None


def _is_ancestor(ancestor: str, descendant: str) -> bool:
    try:
        _run_git("merge-base", "--is-ancestor", ancestor, descendant)
    except GitError:
        return False
    return True


def _get_committer() -> dict[str, str]:
    """Environment that names the committer where git knows nobody."""
    environment: dict[str, str] = {}
    for role in ("AUTHOR", "COMMITTER"):
        try:
            _run_git("var", f"GIT_{role}_IDENT")
        except GitError:
            environment |= {
                f"GIT_{role}_NAME": DEFAULT_COMMITTER[0],
                f"GIT_{role}_EMAIL": DEFAULT_COMMITTER[1],
            }
    return environment


def _run_git(
    *arguments: str,
    stdin: str = "",
    index: Path | None = None,
    committer: dict[str, str] | None = None,
) -> str:
    """What git prints, stripped of the line's end; GitError with what it complained of."""
    environment = os.environ | (committer or {}) | ({"GIT_INDEX_FILE": str(index)} if index else {})
    switches = (
        "--no-optional-locks",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.splitIndex=false",
    )
    result = subprocess.run(
        ["git", *switches, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=environment,
    )
    if result.returncode:
        errors = result.stderr.strip().splitlines()
        raise GitError(
            errors[-1] if errors else f"git {arguments[0]} ended with {result.returncode}"
        )
    return result.stdout.rstrip("\n")


def _print_warning(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
