"""The file system that DVC uses in this package: files that it rewrites are replaced atomically."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dvc.fs import LocalFileSystem


class ReplacingFileSystem(LocalFileSystem):  # type: ignore[misc] # DVC has no types
    """DVC writes dvc.lock and its list of busy paths in place; a kill in the middle would leave a
    file that neither DVC nor a rerun can read.
    """

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> Any:
        if mode.startswith("w"):
            return self._replace(path, mode, **kwargs)
        return super().open(path, mode, **kwargs)

    @contextmanager
    def _replace(self, path: str, mode: str, **kwargs: Any) -> Iterator[IO[Any]]:
        partial = f"{path}.partial"
        with super().open(partial, mode, **kwargs) as file:
            yield file
        Path(partial).replace(path)
