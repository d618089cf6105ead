"""Files of a root in a store that fsspec knows: a folder, a prefix, a file or a list in braces
(`s3://bucket/train-{000000..000146}.tar`).
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from densecl.datasets.storage.filenames import (
    CLASS_FILES,
    INFO_FILES,
    find_litter,
    to_printable,
)
from densecl.errors import DataError, DenseclError, RetryLater

REMOTE = re.compile(r"^[a-z][a-z0-9+.-]+://")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")
MAX_LISTED = 1_000_000  # names that braces may expand to
CREDENTIALS = ("NoCredentials", "PartialCredentials", "CredentialRetrieval", "TokenRetrieval")
OUTAGES = ("Connect", "Timeout", "Connection", "Gaierror", "ServerDisconnected", "HTTPClient")


def is_remote(root: str) -> bool:
    return bool(REMOTE.match(root))


def expand_braces(text: str) -> list[str]:
    """`a-{08..10}` expands to a-08, a-09 and a-10, `{train,val}.tar` to two files."""
    match = BRACES.search(text)
    if not match:
        return [text]
    first, last, names = match.groups()
    parts = (names or "").split(",")
    if first is not None:
        if not 0 <= int(last) - int(first) < MAX_LISTED:
            raise DataError(
                f"{to_printable(text)}: found the range {first} to {last}, expected a rising one "
                f"of at most {MAX_LISTED:,} shards; correct the root"
            )
        parts = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [
        rest
        for part in parts
        for rest in expand_braces(text[: match.start()] + part + text[match.end() :])
    ]


class RemoteStore:
    """The files of a root by their names below `base`, the folder around them, which is found by
    listing them unless it is known.
    """

    def __init__(self, root: str, base: str = "") -> None:
        self.root, self.base = root, base.rstrip("/")
        self.left_out = Counter[str]()  # hidden and system files by reason, of the last listing
        with explain_store_errors(root):
            from fsspec.core import url_to_fs

            self.store, _ = url_to_fs(expand_braces(root)[0])

    def list_files(self) -> dict[str, int]:
        """Size in bytes by name, sorted, with what describes the shards beside them; hidden and
        system files are left out and counted, and empty keys stand for folders.
        """
        paths = [self.store._strip_protocol(url) for url in expand_braces(self.root)]
        found = dict[str, Any]()
        with explain_store_errors(self.root), suppress(FileNotFoundError):
            found = self._find(paths)
        missing = [path for path in paths if len(paths) > 1 and path not in found]
        if missing or not found:
            raise DataError(
                f"{to_printable(self.root)}: found no {to_printable((missing or paths)[0])}"
                f"{f' and {len(missing) - 1} others' if missing[1:] else ''}; expected a folder, a "
                "prefix or a list of shards that are there; correct the root"
            )
        start = len(self.base) + 1
        sizes = {
            path[start:]: int(info["size"] or 0)
            for path, info in found.items()
            if path[start:] and not path.endswith("/")
        }
        litter = {name: find_litter(name.split("/")) for name in sizes}
        self.left_out = Counter(filter(None, litter.values()))
        return {name: size for name, size in sorted(sizes.items()) if not litter[name]}

    def _find(self, paths: list[str]) -> dict[str, Any]:
        """What the store knows of each file, by its path."""
        if len(paths) == 1 and self.store.isdir(paths[0]):
            self.base = paths[0].rstrip("/")
            found: dict[str, Any] = self.store.find(self.base, detail=True)
            return found
        folders = {path.rpartition("/")[0] for path in paths}
        if len(folders) > 1:
            raise DataError(
                f"{to_printable(self.root)}: found shards in {len(folders)} folders, expected one; "
                "put them into one folder, and name it as the root"
            )
        self.base = folders.pop()
        found = self.store.find(self.base, maxdepth=1, detail=True)
        shards = {path: found[path] for path in paths if path in found}
        if not shards and len(paths) == 1:  # the beginning of the names of several
            shards = {path: about for path, about in found.items() if path.startswith(paths[0])}
        if not shards:
            return {}
        beside = (f"{self.base}/{name}" for name in (*INFO_FILES, *CLASS_FILES))
        return shards | {path: found[path] for path in beside if path in found}

    def read(self, name: str) -> bytes:
        """A small file's content; FileNotFoundError."""
        with explain_store_errors(self.root):
            return bytes(self.store.cat_file(f"{self.base}/{name}"))

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """A file to be read from its beginning to its end."""
        with (
            explain_store_errors(f"{self.root}: {name}"),
            self.store.open(f"{self.base}/{name}", cache_type="none") as file,
        ):
            yield file


@contextmanager
def explain_store_errors(place: str) -> Iterator[None]:
    """Every kind of store has errors of its own: each becomes one line."""
    try:
        yield
    except (DenseclError, FileNotFoundError):
        raise
    except Exception as error:
        names = " ".join(kind.__name__ for kind in type(error).__mro__)
        reason = to_printable(" ".join(str(error).split()))[:200] or type(error).__name__
        place = to_printable(place)
        if isinstance(error, ImportError):
            raise DataError(
                f"{place}: {reason}; install what reads this store: pip install 'densecl[s3]', or "
                "gcsfs for gs://"
            ) from None
        if isinstance(error, PermissionError) and error.filename is not None:
            raise  # of a file of this machine
        if isinstance(error, PermissionError) or any(name in names for name in CREDENTIALS):
            raise DataError(
                f"{place}: no access ({reason}); expected credentials of an account that may read "
                "it, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            ) from None
        if isinstance(error, ValueError) and "rotocol" in reason:
            raise DataError(
                f"{place}: {reason}; expected file://, s3:// or gs://; correct the root"
            ) from None
        if any(name in names for name in OUTAGES):
            raise RetryLater(
                f"{place}: the store cannot be reached ({reason}); check its address "
                "(AWS_ENDPOINT_URL) and the network, then run the same command"
            ) from None
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(f"{place}: {type(error).__name__}: {reason}; correct the root") from None
