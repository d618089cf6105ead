"""Seeds of a cell share the names of their images, and nothing else."""

import pandas as pd
import pytest

from densecl.analysis.results import share_names
from densecl.datasets.storage.image_names import to_arrow_strings


def build_rows(names: list[str], sources: list[str], correct: list[bool]) -> pd.DataFrame:
    index = pd.Index(names, name="image_id", dtype="str")
    columns = {"source": pd.Series(sources, index=index, dtype="str"), "correct": correct}
    return pd.DataFrame(columns, index=index)


@pytest.mark.parametrize(
    ("names", "sources", "shared"),
    [
        (["a", "b"], ["s", "t"], (True, True)),
        (["a", "b"], ["s", "s"], (True, False)),
        (["a", "c"], ["s", "t"], (False, False)),
        (["b", "a"], ["t", "s"], (False, False)),
        (["a"], ["s"], (False, False)),
    ],
)
def test_equal_names_are_held_once_and_the_rows_stay_as_they_are(names, sources, shared):
    first = build_rows(["a", "b"], ["s", "t"], [True, False])
    rows = build_rows(names, sources, [False] * len(names))
    expected = rows.copy(deep=True)
    share_names(rows, first)
    pd.testing.assert_frame_equal(rows, expected)
    assert (rows.index is first.index) == shared[0]
    addresses = [to_arrow_strings(frame["source"]).buffers()[2].address for frame in (rows, first)]
    assert (addresses[0] == addresses[1]) == shared[1]
    rows["correct"] = True
    assert first["correct"].tolist() == [True, False]
