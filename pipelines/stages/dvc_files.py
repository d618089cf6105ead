"""DVC's access to files in this package: what it rewrites is replaced atomically, and what several
stages share can be hashed once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dvc.fs import LocalFileSystem
from dvc.output import Output


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


@contextmanager
def hash_paths_once() -> Iterator[None]:
    """Within the block, DVC hashes each path once, and not once per stage that has it.

    A dataset of many files is a dependency of many stages, so that most of the time of looking for
    changes goes into hashing it again. Nothing may change the files meanwhile.
    """
    hash_path = Output.get_hash
    hashes: dict[tuple[str, str, str], Any] = {}

    def get_hash(output: Output) -> Any:
        key = (output.fs.protocol, output.fs_path, output.hash_name)
        if key not in hashes:
            hashes[key] = hash_path(output)
        return hashes[key]

    Output.get_hash = get_hash
    try:
        yield
    finally:
        Output.get_hash = hash_path
