"""Commit a retraining's params, dvc.lock and small reports under a tag of their own, so that each
can be checked out again.

Made with git's plumbing on an index of its own: HEAD, the user's branch, index and working tree
stay as they are, and no other change is included. No hook or filter runs, and nothing is signed.
"""

import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from densecl import paths
from densecl.config.params import Params
from densecl.errors import DenseclError
from densecl.runtime.git import run_git
from pipelines.outcome import csv_log
from pipelines.runtime.git_plumbing import call_git
from pipelines.schemas import GateVerdict, RetrainingRecord

SNAPSHOT_FILES = (
    paths.PARAMS,
    paths.DVC_LOCK,
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
MAX_BYTES = 2**20  # larger files are not committed
CODE_PATHS = ("densecl", "steps", "pipelines", "dvc.yaml", "pyproject.toml", "requirements.lock")


def save_snapshot(params: Params, record: RetrainingRecord, verdict: GateVerdict) -> str | None:
    """Create the tag of this retraining; None and a warning if git fails, which does not fail the
    retraining.
    """
    settings = params.retraining
    if settings.git == "off":
        return None
    try:
        return _create_snapshot(
            record, verdict, settings.branch if settings.git == "commit" else None
        )
    except (OSError, DenseclError) as error:
        _print_warning(f"{error}; this retraining is not kept in git")
        return None


def _create_snapshot(record: RetrainingRecord, verdict: GateVerdict, branch: str | None) -> str:
    started = datetime.fromisoformat(record.started).astimezone(UTC)
    tag = f"retraining/{started:%Y%m%dT%H%M%SZ}-{record.outcome}"
    ref = f"refs/heads/{branch}" if branch else None
    if ref and (worktree := call_git("for-each-ref", "--format=%(worktreepath)", ref)):
        _print_warning(
            f"retraining.branch: {branch} is checked out in {worktree}, and moving it would look "
            f"like changes there; only tagged"
        )
        ref = None
    head, tip = _resolve_commit("HEAD"), _resolve_commit(ref) if ref else ""
    files = [path for path in SNAPSHOT_FILES if path.is_file()]
    files += [path for folder in CELL_FOLDERS for path in sorted(folder.rglob("*.json"))]
    large = [path for path in files if path.stat().st_size > MAX_BYTES]
    tree = _write_tree(
        head, [path for path in files if path not in large], record.model_copy(update={"git": tag})
    )
    is_ancestor = tip and head and call_git("merge-base", head, tip) == head
    parents = [commit for commit in (tip, "" if is_ancestor else head) if commit]
    commit = call_git(
        "commit-tree",
        "--no-gpg-sign",
        tree,
        *(word for parent in parents for word in ("-p", parent)),
        stdin=_format_message(record, verdict, head, large),
    )
    call_git("update-ref", f"refs/tags/{tag}", commit, "")  # "": there is none yet
    try:
        if ref:
            call_git("update-ref", "-m", "retraining", ref, commit, tip)
    except DenseclError as error:  # moved meanwhile, or a branch `retraining/...` is in its way
        _print_warning(f"retraining.branch: {error}; only tagged")
    return tag


def _write_tree(head: str, files: list[Path], record: RetrainingRecord) -> str:
    """HEAD's tree with copies of these files and the log up to this retraining."""
    with tempfile.TemporaryDirectory() as folder:
        index, log = Path(folder, "index"), Path(folder, paths.RETRAINING_LOG.name)
        sources = {path: path.absolute() for path in files}
        if paths.RETRAINING_LOG in files:
            shutil.copyfile(paths.RETRAINING_LOG, log)
        if paths.RETRAINING_LOG in files or not paths.RETRAINING_LOG.exists():
            csv_log.append_record(log, record)
            sources[paths.RETRAINING_LOG] = log
        call_git("read-tree", head or "--empty", index=index)
        removed = [path.as_posix() for path in (*SNAPSHOT_FILES, *CELL_FOLDERS)]
        call_git("rm", "-rfq", "--cached", "--ignore-unmatch", "--", *removed, index=index)
        # The content of links, as DVC may leave them, byte for byte: no filter of .gitattributes.
        names = "".join(f"{source}\n" for source in sources.values())
        hashes = call_git("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=names)
        prefix = call_git("rev-parse", "--show-prefix")
        entries = zip(hashes.split(), sources, strict=True)
        lines = "".join(f"100644 {digest}\t{prefix}{path.as_posix()}\0" for digest, path in entries)
        call_git("update-index", "-z", "--index-info", stdin=lines, index=index)
        return call_git("write-tree", index=index)


def _format_message(
    record: RetrainingRecord, verdict: GateVerdict, head: str, large: list[Path]
) -> str:
    lines = [f"Retraining of {record.started}: {record.outcome}", "", verdict.said, ""]
    status = ("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all")
    changed = [entry[3:] for entry in call_git(*status, "--", *CODE_PATHS).split("\0") if entry]
    if changed:
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


def _resolve_commit(revision: str) -> str:
    """Hash of a commit; "" if it does not exist."""
    return run_git("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}").strip()


def _print_warning(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
