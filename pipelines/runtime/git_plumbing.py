"""Git's plumbing, which leaves HEAD, branches, index and working tree as they are. No hook of the
user's runs, and nothing is signed.
"""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from densecl.errors import DenseclError

SETTINGS = (
    "user.name=densecl retraining",
    "user.email=retraining@localhost",
    "core.hooksPath=/dev/null",
    "core.splitIndex=false",
)


def call_git(
    *arguments: str,
    stdin: str = "",
    index: Path | None = None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Output of git without its final newline; DenseclError with git's message. `variables` are
    added to its environment.
    """
    switches = [word for setting in SETTINGS for word in ("-c", setting)]
    result = subprocess.run(
        ["git", "--no-optional-locks", "--literal-pathspecs", *switches, *arguments],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        env={**os.environ, **variables} | ({"GIT_INDEX_FILE": str(index)} if index else {}),
    )
    if result.returncode:
        reason = result.stderr.strip() or f"git {arguments[0]} ended with {result.returncode}"
        raise DenseclError(reason.splitlines()[-1])
    return result.stdout.rstrip("\n")
