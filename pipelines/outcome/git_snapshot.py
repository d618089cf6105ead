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
from pipelines.schemas import Finished, Verdict

KEPT = (
    paths.PARAMS,
    Path("dvc.lock"),
    paths.CHAMPION_REPORTS / "dvc.yaml",
    paths.CHAMPION_REPORTS / "dvc.lock",
    paths.COMPARISON,
    paths.REPORT_TEXT,
    paths.REPORT_TABLE,
    paths.GATE,
    paths.CHANGES,
    paths.RETRAININGS,
    paths.CARD,
)
CELLS = (paths.EVALUATION, paths.CHAMPION_REPORTS / paths.EVALUATION.name)  # their *.json
LARGEST = 2**20  # bytes of a file that is kept; a report beyond is none of the small ones
CODE = ("densecl", "steps", "pipelines", "dvc.yaml", "pyproject.toml", "requirements.lock")
NOBODY = ("densecl retraining", "retraining@localhost")  # who commits where git knows nobody


def keep(params: Params, finished: Finished, verdict: Verdict) -> str | None:
    """The tag that holds this retraining; None, and a warning, where git could not: that fails no
    retraining.
    """
    if params.retraining.git == "off":
        return None
    try:
        return _keep(
            finished,
            verdict,
            params.retraining.branch if params.retraining.git == "commit" else None,
        )
    except (OSError, ValueError, GitError) as error:
        _warn(f"{error}; this retraining is not kept in git")
        return None


class GitError(Exception):
    """Git's own last line."""


def _keep(finished: Finished, verdict: Verdict, branch: str | None) -> str:
    prefix = _git("rev-parse", "--show-prefix")
    head = _commit("HEAD")
    ref = f"refs/heads/{branch}" if branch else None
    if ref and (where := _git("for-each-ref", "--format=%(worktreepath)", ref)):
        _warn(
            f"retraining.branch: {branch} is checked out in {where}, and moving it would look "
            f"like changes there; only tagged"
        )
        ref = None
    tip = _commit(ref) if ref else None
    files, large = _files()
    tag = name(finished)
    with tempfile.TemporaryDirectory() as folder:
        lying = {path: path.absolute() for path in files}
        if paths.RETRAININGS not in large:
            rows = Path(folder, paths.RETRAININGS.name)
            lying[paths.RETRAININGS] = _with(finished.model_copy(update={"git": tag}), rows)
        tree = _tree(head, prefix, lying, Path(folder, "index"))
    parents = [tip, head] if tip and head and not _is_ancestor(head, tip) else [tip or head]
    made = _made(tree, [p for p in parents if p], _message(finished, verdict, head, large))
    _git("update-ref", f"refs/tags/{tag}", made, "")  # "": there is none yet
    if ref:
        _move(ref, made, tip)
    return tag


def name(finished: Finished) -> str:
    """`retraining/<start, UTC>-<outcome>`."""
    started = datetime.fromisoformat(finished.started).astimezone(UTC)
    return f"retraining/{started:%Y%m%dT%H%M%SZ}-{finished.outcome}"


def _files() -> tuple[list[Path], list[Path]]:
    """Small ones, and those left out for their size."""
    found = [path for path in KEPT if path.is_file()]
    found += [path for folder in CELLS for path in sorted(folder.rglob("*.json"))]
    large = [path for path in found if path.stat().st_size > LARGEST]
    return [path for path in found if path not in large], large


def _with(finished: Finished, copy: Path) -> Path:
    """A copy of the lines of all retrainings, this one's too, which is written where its tag is
    known to hold.
    """
    if paths.RETRAININGS.exists():
        shutil.copyfile(paths.RETRAININGS, copy)
    csv_log.append(copy, finished)
    return copy


def _tree(head: str | None, prefix: str, files: dict[Path, Path], index: Path) -> str:
    """HEAD's tree with these files, whose bytes lie where the values say, and without kept ones
    that are gone.
    """
    _git("read-tree", head or "--empty", index=index)
    gone = [path.as_posix() for path in (*KEPT, *CELLS)]
    _git(
        "--literal-pathspecs",
        "rm",
        "-rfq",
        "--cached",
        "--ignore-unmatch",
        "--",
        *gone,
        index=index,
    )
    # What lies under a link, as DVC may leave it, not the link; bytes as they are.
    names = "".join(f"{place}\n" for place in files.values())
    hashes = _git("hash-object", "-w", "--no-filters", "--stdin-paths", given=names).split()
    entries = zip(hashes, files, strict=True)
    lines = "".join(f"100644 {digest}\t{prefix}{path.as_posix()}\0" for digest, path in entries)
    _git("update-index", "-z", "--index-info", index=index, given=lines)
    return _git("write-tree", index=index)


def _made(tree: str, parents: list[str], message: str) -> str:
    onto = [word for parent in parents for word in ("-p", parent)]
    return _git("commit-tree", "--no-gpg-sign", tree, *onto, given=message, who=_who())


def _move(ref: str, made: str, tip: str | None) -> None:
    try:
        _git("update-ref", "-m", "retraining", ref, made, tip or "")
    except GitError as error:  # moved meanwhile, or a branch `retraining/...` is in its way
        _warn(f"retraining.branch: {error}; only tagged")


def _message(finished: Finished, verdict: Verdict, head: str | None, large: list[Path]) -> str:
    lines = [f"Retraining of {finished.started}: {finished.outcome}", "", verdict.said, ""]
    if differing := _differing():
        what = f"differed from {head[:12]} in" if head else "is in no commit"
        lines += [f"The code of this retraining {what}: {', '.join(differing)}", ""]
    if large:
        lines += [f"Left out, above {LARGEST} bytes: {', '.join(map(str, large))}", ""]
    told = {
        "Mode": f"{verdict.mode}, seed {verdict.seed}",
        "Version": finished.version,
        "Champion": finished.champion,
        "ZenML-run": finished.zenml_run,
    }
    return "\n".join(lines + [f"{key}: {value}" for key, value in told.items() if value]) + "\n"


def _differing() -> list[str]:
    """Code files that are not as HEAD has them, new ones too."""
    entries = _git(
        "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *CODE
    ).split("\0")
    return [entry[3:] for entry in entries if entry]


def _commit(name: str) -> str | None:
    try:
        return _git("rev-parse", "--quiet", "--verify", f"{name}^{{commit}}")
    except GitError:
        return None


def _is_ancestor(one: str, other: str) -> bool:
    try:
        _git("merge-base", "--is-ancestor", one, other)
    except GitError:
        return False
    return True


def _who() -> dict[str, str]:
    """Environment that names the committer where git knows nobody."""
    found: dict[str, str] = {}
    for role in ("AUTHOR", "COMMITTER"):
        try:
            _git("var", f"GIT_{role}_IDENT")
        except GitError:
            found |= {f"GIT_{role}_NAME": NOBODY[0], f"GIT_{role}_EMAIL": NOBODY[1]}
    return found


def _git(
    *arguments: str, given: str = "", index: Path | None = None, who: dict[str, str] | None = None
) -> str:
    """What git prints, stripped of the line's end; GitError with what it complained of."""
    environment = os.environ | (who or {}) | ({"GIT_INDEX_FILE": str(index)} if index else {})
    switches = (
        "--no-optional-locks",
        "-c",
        "core.hooksPath=/dev/null",
        "-c",
        "core.splitIndex=false",
    )
    done = subprocess.run(
        ["git", *switches, *arguments],
        input=given,
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=environment,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise GitError(said[-1] if said else f"git {arguments[0]} ended with {done.returncode}")
    return done.stdout.rstrip("\n")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
