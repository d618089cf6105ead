"""The resumable state of one training: the last two of them, in a folder that one process at a time
holds.
"""

from __future__ import annotations

import fcntl
import io
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from densecl.errors import DenseclError, RetryLater
from densecl.runtime.atomic_files import open_atomic_file

MAX_CHECKPOINTS = 2
LOCK_TIMEOUT = 15.0  # s: a training that was just stopped may still be writing its checkpoint


class CheckpointError(DenseclError):
    """A checkpoint that cannot be gone on from."""


class CheckpointLocked(RetryLater):
    """Another process is at this very training."""


class CheckpointFolder:
    """States of one training by the number of steps done; made by `lock_checkpoints`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any]) -> Path:
        """The state's file, atomic and on the disk; older ones than the last two are gone. OSError
        where it cannot be written.
        """
        path = self.folder / f"step-{state['done']:09d}.pt"
        try:
            with open_atomic_file(path) as file:
                torch.save(state, file)
        except RuntimeError as error:
            # torch reports its own bookkeeping; what the disk said stands behind it.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        for old in self.list_paths()[:-MAX_CHECKPOINTS]:
            old.unlink()
        return path

    def list_paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def load_latest(self, warn: Callable[[str], None]) -> tuple[bytes | None, str]:
        """The newest whole checkpoint and its path; of a damaged one `print_error` hears, and the
        one before takes its place.
        """
        for path in reversed(self.list_paths()):
            try:
                data = read_checkpoint(path)
                load_state(data, str(path))
            except CheckpointError as error:
                warn(f"WARNING: {error}; taking the one before")
            else:
                return data, str(path)
        return None, ""

    def remove_all(self) -> None:
        """After the export nothing needs them."""
        shutil.rmtree(self.folder, ignore_errors=True)


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint's file; CheckpointError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; expected a checkpoint, "
            f"checkpoints/<fingerprint>/step-<n>.pt"
        ) from None


def load_state(data: bytes, source: str) -> dict[str, Any]:
    """The state of a checkpoint's bytes; CheckpointError where they are damaged or no checkpoint.

    Tensors and plain values only: pickled code is not run. Checksums are compared, which torch does
    not do.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            compressed = [
                entry.filename
                for entry in archive.infolist()
                if entry.compress_type != zipfile.ZIP_STORED
            ]
            problem = archive.testzip() if not compressed else compressed[0]
        state = (
            None if problem else torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        )
    except Exception as error:  # whatever bytes can make a reader raise
        problem = " ".join(str(error).split())[:100]
    if problem:
        raise CheckpointError(f"{source}: damaged or no checkpoint ({problem})")
    if not isinstance(state, dict) or not {"fits", "done", "model"} <= set(state):
        raise CheckpointError(
            f"{source}: no checkpoint of a training: found {type(state).__name__} without fits, "
            f"done and model"
        )
    return state


def check_compatible(stored: dict[str, Any], expected: dict[str, Any], source: str) -> None:
    """CheckpointError that names the first thing in which a checkpoint's training is another
    one.
    """
    for name, value in expected.items():
        if stored.get(name) != value:
            raise CheckpointError(
                f"{source}: {name}: found {str(stored.get(name))[:80]}, expected "
                f"{str(value)[:80]}: it was made by another "
                "training; resume it with its own params, data and code, or start without it"
            )


@contextmanager
def lock_checkpoints(folder: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[CheckpointFolder]:
    """The folder's checkpoints, for this process alone; InUse says who holds them after `patience`
    seconds.

    The lock ends with its process. It is POSIX's, not flock: that one would live on in loader
    workers that outlast a killed trainer.
    """
    path, deadline = folder / "lock", time.monotonic() + timeout
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                break  # else the one before removed the folder with this lock
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                file.seek(0)
                raise CheckpointLocked(
                    f"{folder}: in use by {file.read().strip() or 'another process'}; wait until "
                    f"it ends, or stop it"
                ) from None
            time.sleep(0.2)
        file.close()
    with file:
        file.truncate(0)
        locked_at = datetime.now().astimezone().isoformat(timespec="seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {locked_at}\n")
        file.flush()
        yield CheckpointFolder(folder)
