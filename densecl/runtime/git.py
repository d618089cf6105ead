"""Read-only git: no hook or file-system monitor that a repository configures is started."""

import subprocess
from pathlib import Path

SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")


def run_git(*args: str, root: Path = Path(), timeout: float = 60.0) -> str:
    """The output of git; "" if it is missing, fails or takes longer than `timeout` seconds."""
    try:
        result = subprocess.run(
            ["git", *SAFE, "-C", str(root), *args],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout if result.returncode == 0 else ""
