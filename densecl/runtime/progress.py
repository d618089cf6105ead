"""Progress of a stage: a bar on a terminal, or a file that the engine of `pipelines` displays."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

# Environment variable: the file to which a stage writes its progress.
PROGRESS_ENV = "DENSECL_PROGRESS"
WRITE_INTERVAL = 0.5  # s


class Update(Protocol):
    """Call with the work done and its total, in any unit, and a text to show after the bar."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


@contextmanager
def track_progress(description: str) -> Iterator[Update]:
    """Show the progress of this process; yields the function to call with it."""
    if path := os.environ.get(PROGRESS_ENV):
        yield _create_file_update(Path(path))
        return
    if not sys.stderr.isatty():
        yield _ignore_progress
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=None, text="")

        def update(done: int, total: int, text: str = "") -> None:
            progress.update(task, completed=done, total=total, text=text)

        yield update


def _ignore_progress(done: int, total: int, text: str = "") -> None:
    """Nothing shows the progress."""


def _create_file_update(path: Path) -> Update:
    last_write = 0.0

    def update(done: int, total: int, text: str = "") -> None:
        nonlocal last_write
        now = time.monotonic()
        if now - last_write < WRITE_INTERVAL and done < total:
            return
        last_write = now
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps({"done": done, "total": total, "text": text}))
        partial.replace(path)

    return update
