"""Progress of a stage: on a terminal, and, where it runs beside others, for the display of
`python -m pipelines run`.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def show_bytes(text: str) -> Iterator[Callable[[int, int], None]]:
    """A function that receives the bytes done and their total."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    columns = (f"{text}: ", BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task(text, total=None)

        def update_progress(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)
            write_progress(done, total, text)

        yield update_progress
