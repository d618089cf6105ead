"""The checkpoints of one training run: the last two, in a folder that one process locks."""

import io
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from densecl.errors import DenseclError, RetryLater
from densecl.runtime.atomic_files import open_atomic_file
from densecl.runtime.locks import hold_lock

MAX_CHECKPOINTS = 2
LOCK_TIMEOUT = 15.0  # s: a run that was just stopped may still be writing its checkpoint
# Environment variable: the job and restart that trains here. Where a node dies, its job may live on
# beside its requeued copy: the one that started last is the only writer.
WRITER_ENV = "DENSECL_WRITER"
TAKEOVER_TIMEOUT = 1200.0  # s: the other writer stops at its next checkpoint


class CheckpointError(DenseclError):
    """A checkpoint that cannot be resumed from."""


class CheckpointFolder:
    """States of one training run by number of steps; created by `lock_checkpoints`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, state: dict[str, Any]) -> Path:
        """Write a state atomically and return its path; retain the last MAX_CHECKPOINTS.

        Raises OSError if it cannot be written, RetryLater if a later job trains here.
        """
        path = self.folder / f"step-{state['steps_done']:09d}.pt"
        try:
            with open_atomic_file(path) as file:
                torch.save(state, file)
                check_writer(self.folder)  # just before the file is renamed
        except RuntimeError as error:
            # torch hides the error of the disk behind one of its own.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        for old in self.list_paths()[:-MAX_CHECKPOINTS]:
            old.unlink()
        return path

    def list_paths(self) -> list[Path]:
        """Paths of the checkpoints, oldest first."""
        return sorted(self.folder.glob("step-*.pt"))

    def load_latest(self, warn: Callable[[str], None]) -> tuple[bytes | None, str]:
        """Bytes and path of the newest intact checkpoint; (None, "") without one.

        A corrupt checkpoint is reported to `warn`, and the previous one is used.
        """
        for path in reversed(self.list_paths()):
            try:
                data = read_checkpoint(path)
                load_state(data, str(path))
            except CheckpointError as error:
                warn(f"WARNING: {error}; using the previous one")
            else:
                return data, str(path)
        return None, ""

    def remove_all(self) -> None:
        """Delete the folder, once the model is exported; RetryLater as `save`."""
        check_writer(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)


def read_checkpoint(path: Path) -> bytes:
    """The bytes of a checkpoint; CheckpointError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(
            f"{path}: {error.strerror}; expected a checkpoint, "
            f"checkpoints/<fingerprint>/step-<n>.pt"
        ) from None


def load_state(data: bytes, source: str) -> dict[str, Any]:
    """The state in a checkpoint's bytes; CheckpointError if they are corrupt or no checkpoint.

    Loads tensors and plain values only: pickled code is not run. Verifies the checksums, which
    torch does not do.
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
    except Exception as error:  # corrupt bytes may raise anything
        problem = " ".join(str(error).split())[:100]
    if problem:
        raise CheckpointError(f"{source}: damaged or no checkpoint ({problem})")
    if not isinstance(state, dict) or not {"compatibility", "steps_done", "weights"} <= set(state):
        raise CheckpointError(
            f"{source}: not a checkpoint of a training run: found {type(state).__name__}, expected "
            f"a dict with compatibility, steps_done and weights"
        )
    return state


def check_compatible(stored: dict[str, Any], expected: dict[str, Any], source: str) -> None:
    """Raise CheckpointError that names the first value in which two training runs differ."""
    for name, value in expected.items():
        if stored.get(name) != value:
            raise CheckpointError(
                f"{source}: {name}: found {str(stored.get(name))[:80]}, expected "
                f"{str(value)[:80]}: it belongs to another training run; resume it with its own "
                f"params, data and code, or start without it"
            )


@contextmanager
def lock_checkpoints(folder: Path, timeout: float = LOCK_TIMEOUT) -> Iterator[CheckpointFolder]:
    """The checkpoints of a folder, locked for this process.

    Raises RetryLater, which names the holder, after `timeout` seconds. A job of a cluster claims
    the folder first, so that an earlier copy of it stops.
    """
    if writer := os.environ.get(WRITER_ENV):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "writer").write_text(writer, encoding="utf-8")
        timeout = TAKEOVER_TIMEOUT
    with hold_lock(folder / "lock", timeout):
        yield CheckpointFolder(folder)


def check_writer(folder: Path) -> None:
    """Raise RetryLater if another job than this one has claimed the folder."""
    path, writer = folder / "writer", os.environ.get(WRITER_ENV, "")
    found = path.read_text(encoding="utf-8") if path.exists() else writer
    if writer and found != writer:
        raise RetryLater(f"{path}: found {found}, expected {writer}: it goes on there, not here")
