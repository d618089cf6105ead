"""Labels of copies that contradict what the copy says elsewhere are refused."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from densecl.config.params import DatasetParams
from densecl.datasets.manifests.layouts.labelled_files import LabelledFiles
from densecl.datasets.manifests.layouts.parquet import list_parquet
from densecl.errors import DataError
from tests.conftest import WNIDS


def write_named_parquet(path: Path, rows: list[tuple[str, str]]) -> None:
    images = [{"bytes": b"", "path": own} for own, _ in rows]
    pq.write_table(pa.table({"image": images, "label": [label for _, label in rows]}), path)


def read_parquet(path: Path, class_list: Path | None = None) -> LabelledFiles:
    return list_parquet(
        DatasetParams(
            root=str(path),
            tracked_by="x",
            layout="parquet",
            class_list=None if class_list is None else str(class_list),
        )
    )


def test_a_label_that_is_another_wnid_than_its_path_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    write_named_parquet(file, [(f"{wnid}/0.JPEG", wnid) for wnid in WNIDS[:3]])
    assert [name for _, name in read_parquet(file).images] == list(WNIDS[:3])
    shifted = [*WNIDS[1:3], WNIDS[0]]
    write_named_parquet(file, [(f"{a}/0.JPEG", b) for a, b in zip(WNIDS, shifted, strict=False)])
    with pytest.raises(DataError, match=rf"label {WNIDS[1]} on a file .* {WNIDS[0]}, expected"):
        read_parquet(file)
    write_named_parquet(file, [(f"{WNIDS[0]}/0.JPEG", "dog"), (f"{WNIDS[1]}/0.JPEG", "dog")])
    assert len(read_parquet(file).images) == 2


def test_labels_that_are_names_are_lines_of_the_class_list(tmp_path: Path) -> None:
    file, classes = tmp_path / "a.parquet", tmp_path / "classes.txt"
    write_named_parquet(file, [("0.jpg", "dog"), ("1.jpg", "cat")])
    classes.write_text("cat\ndog\nowl\n")
    assert [name for _, name in read_parquet(file, classes).images] == ["dog", "cat"]
    classes.write_text("cat\nowl\n")
    with pytest.raises(DataError, match=r"label 'dog', expected a line of .*classes\.txt"):
        read_parquet(file, classes)
