"""Progress of a stage that runs beside others, for the display of `python -m pipelines run`."""

import json
import os
import time
from pathlib import Path

# Environment variable: the file to which a stage writes its progress.
PROGRESS_ENV = "DENSECL_PROGRESS"
WRITE_INTERVAL = 0.5  # s

_last_write = float("-inf")


def write_progress(done: int, total: int, text: str = "") -> None:
    """Write the work done and its total, in any unit, to the file that the environment names; at
    most twice per second.
    """
    global _last_write  # noqa: PLW0603
    path, now = os.environ.get(PROGRESS_ENV), time.monotonic()
    if path is None or now - _last_write < WRITE_INTERVAL:
        return
    _last_write = now
    partial = Path(f"{path}.partial")
    partial.write_text(json.dumps({"done": done, "total": total, "text": text}), encoding="utf-8")
    partial.replace(path)
