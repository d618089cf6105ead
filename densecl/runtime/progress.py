"""Progress of a stage that runs beside others, for the display of `python -m pipelines run`."""

import json
import os
from pathlib import Path

from densecl.runtime.atomic_files import open_atomic_file

# Environment variable: the file to which a stage writes its progress.
PROGRESS_ENV = "DENSECL_PROGRESS"


def write_progress(done: int, total: int, text: str = "") -> None:
    """Write the work done and its total, in any unit, to the file that the environment names."""
    if path := os.environ.get(PROGRESS_ENV):
        with open_atomic_file(Path(path)) as file:
            file.write(json.dumps({"done": done, "total": total, "text": text}).encode())
