"""The index of a dataset of shards: names, sizes and SHA-256, in a small local file that DVC tracks
in the place of the shards (`tracked_by`). `pack` and `plan` write it.
"""

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from densecl.artifacts import write_text
from densecl.datasets.storage.filenames import to_printable
from densecl.errors import DataError

INDEX_FILE = "index.json"  # beside shards that `pack` wrote
MAX_NAME, MAX_PART = 1024, 255  # of S3, and of file systems


def _check_name(name: str) -> str:
    """ValueError unless a file of any file system can have this name."""
    parts = name.split("/")
    if name.startswith(".") or not {"", ".", ".."}.isdisjoint(parts):
        raise ValueError("expected a path below the root")
    if "\0" in name:
        raise ValueError("found a NUL, expected a name that a file can have")
    if max(len(os.fsencode(part)) for part in parts) > MAX_PART or len(name) > MAX_NAME:
        raise ValueError(
            f"found {len(name):,} characters, expected at most {MAX_NAME:,}, and {MAX_PART} bytes "
            "between slashes"
        )
    return name


def check_names(names: Iterable[str]) -> None:
    """ValueError unless files of these names can exist together below one root."""
    files = set[str]()
    for name in names:
        try:
            _check_name(name)
        except ValueError as error:
            raise ValueError(f"{to_printable(name)[:80]}: {error}") from None
        if name in files:
            raise ValueError(f"{to_printable(name)[:80]}: found two files of this name")
        files.add(name)
    for name in files:
        if folder := next((str(p) for p in PurePosixPath(name).parents if str(p) in files), None):
            raise ValueError(
                f"{to_printable(folder)[:80]}: found a file, and a folder around "
                f"{to_printable(name)[:80]}, expected one of them"
            )


class IndexedFile(BaseModel):
    """A file of the dataset: a shard, or a description beside the shards."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: Annotated[str, AfterValidator(_check_name)]  # below the root, with slashes
    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    images: int | None = Field(default=None, exclude_if=lambda images: images is None)


class ShardIndex(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    base: str = ""  # the folder of the store around the files, as it is known to plan
    shards: tuple[IndexedFile, ...]
    files: tuple[IndexedFile, ...] = ()  # beside them, such as _info.json
    left_out: dict[str, int] = Field(default={}, exclude_if=lambda counts: not counts)  # by reason

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        check_names(file.name for file in self.all_files)
        return self

    @property
    def all_files(self) -> tuple[IndexedFile, ...]:
        return (*self.shards, *self.files)


def write_index(index: ShardIndex, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, index.model_dump_json(indent=1) + "\n")


def parse_index(content: bytes, place: str) -> ShardIndex:
    """DataError unless the content is an index; `place` names it."""
    try:
        return ShardIndex.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(
            f"{to_printable(place)}: {key}: {to_printable(first['msg'])[:120]}; expected an index "
            "of shards with name, bytes and sha256; remove it, and `python -m steps plan` writes it"
        ) from None


def read_index(path: Path) -> ShardIndex | None:
    """None if there is none yet: no file, or the empty one that DVC is given to watch."""
    try:
        content = path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return None
    return parse_index(content, str(path)) if content.strip() else None
