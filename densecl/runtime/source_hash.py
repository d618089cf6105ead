"""A hash of modules of this package, for results that are kept while their code is the same."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import densecl


def hash_sources(parts: Iterable[str], prefix: bytes = b"") -> str:
    """16 hex digits of `prefix` and of the package's modules in `parts`: files, and folders with
    all their modules.
    """
    digest, package = hashlib.sha256(prefix), Path(densecl.__file__).parent
    for part in parts:
        path = package / part
        for source in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
