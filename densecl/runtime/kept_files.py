"""Files of cache/ that spare computing something again: the SHA-256 of name and content, a line
break, the content. One that was damaged, or is another under this name, counts as missing.
"""

import hashlib
import uuid
from pathlib import Path

from densecl.runtime.atomic_files import open_atomic_file


def read_kept(path: Path) -> bytes | None:
    """The content as it was kept; None if there is none."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    return content if digest == _compute_digest(path, content) else None


def write_kept(path: Path, content: bytes) -> None:
    """Readers see a whole file or none; several processes may keep the same one."""
    own = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    with open_atomic_file(own) as file:
        file.write(_compute_digest(path, content) + b"\n" + content)
    own.replace(path)


def _compute_digest(path: Path, content: bytes) -> bytes:
    return hashlib.sha256(path.name.encode() + b"\n" + content).hexdigest().encode()
