"""Locks between processes; a second process names the holder and stops."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from densecl.errors import RetryLater


@contextmanager
def hold_lock(path: Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold a lock on the file `path` during the block; the kernel releases it when the process
    ends.

    Raises RetryLater, which names the holder, after `timeout` seconds.
    """
    lock = None
    while lock is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(path, timeout=timeout).acquire()
        except FileNotFoundError:
            continue  # the holder has just removed the folder
        except Timeout:
            holder = path.read_text("utf-8", "backslashreplace") if path.exists() else ""
            raise RetryLater(
                f"{path}: held by {holder or 'another process'}; run again when it has ended, or "
                "stop it"
            ) from None
    with lock:
        now = datetime.now().astimezone().isoformat(timespec="seconds")
        command = " ".join(sys.argv[1:])
        holder = f"process {os.getpid()} on {socket.gethostname()} since {now} (`{command}`)"
        path.write_text(holder, "utf-8", "backslashreplace")
        yield
