"""Symbolic links."""

import os
from pathlib import Path


def replace_link(link: Path, target: Path) -> None:
    """Link to a file. A relative path leads to the same file if the project is moved."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(target if target.is_absolute() else os.path.relpath(target, link.parent))
