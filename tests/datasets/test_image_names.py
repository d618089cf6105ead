"""Names of images in Arrow buffers: the strings, paths and order that lists gave."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, strategies as st

from densecl import distributed
from densecl.datasets.storage import image_names
from densecl.datasets.storage.image_names import (
    FolderedNames,
    ImageFiles,
    ImageIds,
    to_arrow_strings,
)
from densecl.datasets.views.two_views import EpochRows, draw_epoch_order
from densecl.seeding import derive_seed

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1, max_size=6)


@given(st.lists(TEXT, min_size=1, max_size=9), TEXT, st.integers(-1, 8))
def test_ids_are_those_of_the_manifest_whatever_precedes_the_path(paths, prefix, odd):
    ids = [prefix + path for path in paths]
    if 0 <= odd < len(ids):
        ids[odd] = "other"
    column = to_arrow_strings(pd.Series(paths))
    names = ImageIds(pd.Series(ids), column)
    assert [names[row] for row in range(len(ids))] == ids


def test_ids_that_differ_beyond_the_first_part_are_kept(monkeypatch):
    monkeypatch.setattr(image_names, "ROWS_AT_ONCE", 2)
    paths = [f"{n}.jpg" for n in range(5)]
    ids = [f"set/{path}" for path in paths]
    column = to_arrow_strings(pd.Series(paths))
    assert ImageIds(pd.Series(ids), column).prefix == "set/"
    kept = ImageIds(pd.Series([*ids[:4], "set/5.jpg"]), column)
    assert (kept.prefix, kept[4], kept[0]) == (None, "set/5.jpg", "set/0.jpg")


def test_files_are_paths_below_the_root_from_columns_of_any_kind():
    paths = ["a/ü.jpg", "b/2.jpg", "b/3.jpg"]
    chunks = pa.table({"path": pa.chunked_array([paths[:1], paths[1:]])}).to_pandas()["path"]
    for column in (pd.Series(paths), pd.Series(paths, dtype=object), chunks, chunks[[0, 2, 1]]):
        files = ImageFiles(Path("root"), column)
        assert list(files) == [Path("root", path) for path in column]
        assert files[1:] == [Path("root", path) for path in column.iloc[1:]]
    assert list(ImageFiles(Path("root"), pd.Series([], dtype="str"))) == []


def test_the_buffer_of_a_manifest_s_column_is_not_copied():
    column = pa.table({"path": pa.array(["x.jpg"] * 100, pa.large_string())}).to_pandas()["path"]
    ours, theirs = (to_arrow_strings(column).buffers()[2] for _ in range(2))
    assert ours.address == theirs.address


@pytest.mark.parametrize(("size", "parts"), [(1, 1), (2, 1), (3, 2)])
def test_order_and_shares_are_those_of_the_lists_they_replace(monkeypatch, size, parts):
    """The definition: the whole epoch as a list, cut by Python slices; 31 leaves a short end."""
    generator = torch.Generator().manual_seed(derive_seed(5, "order", 3))
    order = torch.randperm(31, generator=generator).tolist()
    monkeypatch.setattr(distributed, "get_world_size", lambda: size)
    for rank in range(size):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        own = 12 // parts // size
        starts = range(rank * own, 31, 12 // parts)
        expected = [(3, row) for start in starts for row in order[start : start + own]]
        rows = EpochRows(3, distributed.shard_epoch(draw_epoch_order(31, 3, 5), 12, parts))
        assert list(rows) == expected
        assert len(rows) == len(expected)
        assert rows.rows.dtype == np.int64
        assert {type(row) for _, row in rows} == {int}


@pytest.mark.parametrize("limit", [1, 3, 2**16])
def test_names_are_those_that_were_given(limit, monkeypatch):
    monkeypatch.setattr(image_names, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(image_names, "MAX_BEGINNINGS", limit)
    names = [
        "set/a/a_1.jpg",
        "set/a/a_2.jpg",
        "set/b/1.jpg",
        "plain",
        "",
        "x_",
        "y/",
        "ö/狗_1\n2.jpg",
        "set/a_b/c.jpg",
        "set/a_b/d_e_f.jpg",
    ]
    held = FolderedNames(pd.Series(names))
    assert [held[row] for row in range(len(names))] == names


@pytest.mark.parametrize(
    ("names", "ending"),
    [
        (["a/1.jpg", "a/2.jpg", "b/.jpg", "b/3.x.jpg"], ".jpg"),
        (["a/1.jpg", "a/2.JPG"], ""),
        (["a/1.j.狗é", "b/2.狗é"], ".狗é"),
        (["a/1.\n", "b/2.\n"], ".\n"),
        (["a/1."] * 5, "."),
        (["a.b/1", "a.b/2"], ""),
        ([], ""),
    ],
)
def test_an_ending_of_all_names_is_held_once(names, ending, monkeypatch):
    monkeypatch.setattr(image_names, "ROWS_AT_ONCE", 2)
    held = FolderedNames(pd.Series(names, dtype="str"))
    assert held.ending == ending
    assert [held[row] for row in range(len(names))] == names


@given(st.lists(st.builds(str.__add__, TEXT, st.sampled_from([".jpg", ".a.jpg", ""]))))
def test_any_names_are_those_that_were_given(names):
    held = FolderedNames(pd.Series(names, dtype="str"))
    assert [held[row] for row in range(len(names))] == names
