"""The project's code as a commit that travels to other machines: what is committed, or a temporary
commit that no branch holds where files differ from HEAD.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from densecl import paths
from densecl.errors import DenseclError
from densecl.runtime.cli import shorten_line
from densecl.runtime.git import SAFE, run_git
from pipelines.runtime.git_plumbing import call_git

# Of temporary commits: the same files have the same hash.
DATES = dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), "@0 +0000")
# Untracked files count where stages depend on them, or DVC reads them.
UNTRACKED_PATHS = ("densecl", "steps", "pipelines", "dvc.yaml", paths.PARAMS.as_posix(), ".dvc")


def create_commit(files: Sequence[Path] = ()) -> str:
    """Hash of a commit with the files as they are now, and with `files`, also where git ignores
    them; git's gc removes a temporary one in time.
    """
    head = run_git("rev-parse", "--quiet", "--verify", "HEAD^{commit}").strip()
    index_file = run_git("rev-parse", "--git-path", "index").strip()
    if not index_file:
        raise DenseclError(
            f"{shorten_line(Path.cwd())}: found no git repository, "
            "expected one: jobs on other machines run a "
            f"commit; `git init`"
        )
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        if Path(index_file).exists():
            # With it, git reads only the files that changed, by times: those of its own also.
            shutil.copy2(index_file, index)
        found = [path for path in UNTRACKED_PATHS if Path(path).exists()]
        call_git("add", "--update", index=index)
        call_git("add", "--all", "--", *found, index=index)
        if files:
            call_git("add", "--force", "--", *map(str, files), index=index)
        tree = call_git("write-tree", index=index)
    if head and call_git("rev-parse", f"{head}^{{tree}}") == tree:
        return head
    parent = ("-p", head) if head else ()
    command = ("commit-tree", "--no-gpg-sign", tree, *parent)
    return call_git(*command, stdin="Files of a running job\n", variables=DATES)


def resolve_commit(revision: str) -> str:
    """Hash of a commit; DenseclError if there is none."""
    if commit := run_git("rev-parse", "--quiet", "--verify", f"{revision}^{{commit}}").strip():
        return commit
    raise DenseclError(f"--commit {revision}: found no such commit here; `git log` lists them")


def pack_commit(commit: str) -> bytes:
    """The commit with its files, without its history, as a git pack."""
    objects = call_git("rev-list", "--objects", "--no-walk", commit)
    names = "".join(f"{line.split()[0]}\n" for line in objects.splitlines())
    command = ["git", *SAFE, "pack-objects", "--stdout", "--quiet"]
    return subprocess.run(command, input=names.encode(), capture_output=True, check=True).stdout
