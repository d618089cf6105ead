"""Files of cache/ that spare computing something again: the SHA-256 of name and content, a line
break, the content. One that was damaged, or is another under this name, counts as missing.
"""

import hashlib
import os
import stat
import uuid
from pathlib import Path

MAX_BYTES = 2**28  # of a file that is read; that of a shard of 100,000 images has 11 MB


def read_kept(path: Path) -> bytes | None:
    """The content as it was kept; None if there is none."""
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # no waiting
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
                return None
            return _check(path, file.read())
    except OSError:
        return None


def write_kept(path: Path, content: bytes) -> None:
    """Readers see a whole file or none; several processes may keep the same one."""
    _replace(path, _compute_digest(path, content) + b"\n" + content)


def accept_kept(path: Path, stored: bytes) -> None:
    """Keep the bytes of a file that another machine has kept under this name, if they are whole."""
    if _check(path, stored) is not None:
        _replace(path, stored)


def _check(path: Path, stored: bytes) -> bytes | None:
    digest, _, content = stored.partition(b"\n")
    return content if digest == _compute_digest(path, content) else None


def _replace(path: Path, stored: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        own.write_bytes(stored)
        own.replace(path)
    finally:
        own.unlink(missing_ok=True)


def _compute_digest(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\n" + content).hexdigest().encode()
