"""One pipeline at a time in a project: the second one says who is at work, and stops."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from densecl import paths
from densecl.errors import RetryLater


@contextmanager
def lock_project() -> Iterator[None]:
    """Held for the block, and let go of by the kernel when the process dies, however it dies.
    RetryLater where another holds it.
    """
    paths.RETRAINING_LOCK.parent.mkdir(parents=True, exist_ok=True)
    with paths.RETRAINING_LOCK.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RetryLater(
                f"another pipeline is at work here: {_describe_holder()}; run again when it has "
                f"ended"
            ) from None
        file.truncate(0)
        file.write(
            json.dumps(
                {
                    "process": os.getpid(),
                    "host": socket.gethostname(),
                    "command": " ".join(sys.argv[1:]),
                    "since": datetime.now().astimezone().isoformat(timespec="seconds"),
                }
            )
        )
        file.flush()
        yield
        file.truncate(0)


def _describe_holder() -> str:
    try:
        holder = json.loads(paths.RETRAINING_LOCK.read_text(encoding="utf-8"))
        return (
            f"`{holder['command']}`, process {holder['process']} on "
            f"{holder['host']} since {holder['since']}"
        )
    except (OSError, ValueError, KeyError):
        return f"it holds {paths.RETRAINING_LOCK}"
