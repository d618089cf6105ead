"""The `python` of dvc.yaml's commands is this one, also where its environment is not activated."""

import os
import sys
from pathlib import Path


def put_python_first() -> None:
    """Put the folder of this Python first in PATH."""
    folder = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "").split(os.pathsep)
    if path[0] != folder:
        os.environ["PATH"] = os.pathsep.join([folder, *path])
