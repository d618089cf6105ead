"""Paths and ids of many images in a few Arrow buffers instead of one Python string per image.

Processes forked from this one share the buffers: reading a string changes no reference count in
them, as it would in a list. A manifest of 1.28 M rows takes 50 MB.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

MAX_SMALL_OFFSET = 2**31 - 2**20  # bytes of text that offsets of 32 bits can hold
FOLDER = r"^(?:(.*)/)?[^/]*$"
SEPARATORS, MAX_BEGINNINGS = ("/_", "/"), 2**16
ROWS_AT_ONCE = 65536  # of a comparison, so that its temporary strings stay small


class ImageFiles(Sequence[Path]):
    """The files of the images of a dataset, as paths."""

    def __init__(self, root: Path, paths: pd.Series) -> None:
        self.root, self.paths = root, to_arrow_strings(paths)

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, row: int) -> Path: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Path]: ...
    def __getitem__(self, row: int | slice) -> Path | Sequence[Path]:
        if isinstance(row, slice):
            return [self.root / path for path in self.paths[row].to_pylist()]
        return self.root / str(self.paths[row].as_py())


class ImageIds:
    """The id of each image. A manifest's are `<set>/<path>`, so only the set's name is held."""

    def __init__(self, ids: pd.Series, paths: pa.LargeStringArray) -> None:
        id_column = to_arrow_strings(ids)
        self.prefix = _find_prefix(id_column, paths)
        self.column = id_column if self.prefix is None else paths

    def __getitem__(self, row: int) -> str:
        return (self.prefix or "") + str(self.column[row].as_py())


class FolderedNames:
    """Names that begin like many others, `<set>/<folder>/<folder>_<image>`: what precedes the last
    slash or underscore is held once, as long as few are different; else what precedes the slash.
    So is an ending that all share, such as `.JPEG`.
    """

    def __init__(self, names: pd.Series) -> None:
        column = to_arrow_strings(names)
        for ends in SEPARATORS:
            starts = range(0, max(1, len(column)), ROWS_AT_ONCE)
            parts = [_split_names(column.slice(start, ROWS_AT_ONCE), ends) for start in starts]
            chunks = pa.chunked_array([begin for begin, _ in parts])
            encoded = chunks.unify_dictionaries().combine_chunks()
            if len(encoded.dictionary) <= MAX_BEGINNINGS:
                break
        self.beginnings: list[str] = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy()
        self.codes = codes.astype(np.min_scalar_type(max(1, len(self.beginnings))))
        self.ending, short_names = _split_ending([name for _, name in parts])
        names_only = pa.chunked_array(short_names)
        if names_only.nbytes < MAX_SMALL_OFFSET:
            names_only = names_only.cast(pa.string())
        self.names = names_only.combine_chunks()

    def __getitem__(self, row: int) -> str:
        return self.beginnings[int(self.codes[row])] + str(self.names[row].as_py()) + self.ending


def _split_ending(parts: list[pa.Array]) -> tuple[str, list[pa.Array]]:
    """What follows the last dot of every name, with the dot, and the names without it; "" and the
    names as they are where not all have the same.
    """
    first = str(parts[0][0].as_py()) if len(parts[0]) else ""
    ending = first[first.rfind(".") :] if "." in first else ""
    if not ending or not all(pc.all(pc.ends_with(part, ending)).as_py() for part in parts):
        return "", parts
    return ending, [pc.utf8_slice_codeunits(part, 0, -len(ending)) for part in parts]


def _split_names(names: pa.Array, ends: str) -> tuple[pa.Array, pa.Array]:
    """The beginning of each name, up to the last of the characters `ends`, as a dictionary, and the
    rest.
    """
    beginnings = pc.replace_substring_regex(names, rf"[^{ends}]*$", "")
    return beginnings.dictionary_encode(), pc.replace_substring_regex(
        names, rf"(?s)^.*[{ends}]", ""
    )


def to_arrow_strings(column: pd.Series) -> pa.LargeStringArray:
    """One contiguous array of a column of text, in the memory of the column where possible."""
    array = pa.array(column, pa.large_string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def list_folders(column: pd.Series) -> pa.ChunkedArray:
    """The folder of each path: "" for one directly below the root."""
    names = to_arrow_strings(column)
    return pa.chunked_array(
        [
            pc.replace_substring_regex(names.slice(start, ROWS_AT_ONCE), FOLDER, r"\1")
            for start in range(0, len(names), ROWS_AT_ONCE)
        ],
        names.type,
    )


def _find_prefix(ids: pa.LargeStringArray, paths: pa.LargeStringArray) -> str | None:
    """What precedes the path in every id; None if no one text does."""
    if not len(ids):
        return None
    first, path = str(ids[0].as_py()), str(paths[0].as_py())
    if not first.endswith(path):
        return None
    prefix, empty = first.removesuffix(path), pa.scalar("", paths.type)
    for start in range(0, len(ids), ROWS_AT_ONCE):
        part = paths.slice(start, ROWS_AT_ONCE)
        joined = pc.binary_join_element_wise(pa.scalar(prefix, part.type), part, empty)
        if not pc.all(pc.equal(joined, ids.slice(start, ROWS_AT_ONCE))).as_py():
            return None
    return prefix
