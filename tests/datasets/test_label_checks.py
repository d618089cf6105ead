"""Labels of copies that contradict what the copy says elsewhere are refused."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from densecl.config.params import DatasetParams
from densecl.datasets.manifests.layouts.class_lists import resolve_label_names
from densecl.datasets.manifests.layouts.labelled_files import LabelledFiles
from densecl.datasets.manifests.layouts.parquet import list_parquet
from densecl.datasets.manifests.layouts.webdataset import list_webdataset
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


DEEP = "[" * 100_000


def write_tar(path: Path, members: dict[str, str]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))


def read_tar(path: Path, names: list[str], class_list: Path | None = None) -> LabelledFiles:
    (path.parent / "classnames.txt").write_text("\n".join(names))
    return list_webdataset(
        DatasetParams(
            root=str(path),
            tracked_by="x",
            layout="webdataset",
            class_list=None if class_list is None else str(class_list),
        )
    )


@pytest.mark.parametrize("member", ["a.json", "a.cls", "_info.json"])
def test_json_that_is_nested_too_deeply_is_one_line(tmp_path: Path, member: str) -> None:
    tar = tmp_path / "a.tar"
    if member == "_info.json":
        (tmp_path / member).write_text(DEEP)
        write_tar(tar, {"a.jpg": "", "a.cls": "0"})
    else:
        write_tar(tar, {"a.jpg": "", member: DEEP})
    with pytest.raises(DataError, match=rf"{member}: not readable as .*download it again") as error:
        read_tar(tar, ["cat"])
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_a_key_is_one_image(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    others = {"b/k.mask.png": "", "b/k.thumb.jpg": "", "l.0.jpg": "", "l.cls": "0", "m.png": ""}
    write_tar(tar, {"b/k.JPG": "", "b/k.cls": "1", **others})
    found = read_tar(tar, ["cat", "dog"])
    assert found.images == [("b/k.JPG", "dog")]
    assert found.skipped == {
        "another image of a key, such as KEY.mask.png": 3,
        "extension .cls": 2,
        "without a label": 1,
    }
    write_tar(tar, {"k.jpg": "", "k.png": "", "k.cls": "0"})
    with pytest.raises(DataError, match=r"a\.tar/k: found images k\.jpg, k\.png, expected one"):
        read_tar(tar, ["cat"])


def test_a_label_may_have_leading_zeros(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    for name in ("a.cls", "a.CLS"):
        write_tar(tar, {"a.jpg": "", name: "0001\n"})
        assert read_tar(tar, ["cat", "dog"]).images == [("a.jpg", "dog")]
        for text, found in (("n01440764", "'n01440764'"), ("1.5", "'1.5'"), ("[[0]]", "a list")):
            write_tar(tar, {"a.jpg": "", name: text})
            with pytest.raises(DataError, match=rf"{name}: found {found}, expected a label"):
                read_tar(tar, ["cat", "dog"])


def test_a_class_beside_the_label_is_compared_with_it(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    for said, names in ((WNIDS[0], list(WNIDS[:2])), ("dog", ["dog", "cat"])):
        about = {"label": 1, "class": said, "filename": "1.jpg"}
        write_tar(tar, {"a.jpg": "", "a.json": json.dumps(about)})
        with pytest.raises(DataError, match=rf"a\.jpg: found class '{said}' beside label 1, which"):
            read_tar(tar, names)
        assert read_tar(tar, names[::-1]).images == [("a.jpg", said)]
    assert read_tar(tar, ["owl", "horse"]).images == [("a.jpg", "horse")]  # renamed


def test_wnids_of_the_dataset_in_another_order_than_the_class_list_are_refused(
    tmp_path: Path,
) -> None:
    classes, own = tmp_path / "classes.txt", list(WNIDS[:3])
    classes.write_text("\n".join([own[0], own[2], own[1]]))
    with pytest.raises(
        DataError, match=rf"line 2: found {own[2]}, expected {own[1]}, as .*label 1"
    ):
        resolve_label_names(tmp_path, own, str(classes))
    classes.write_text("\n".join(own))
    assert resolve_label_names(tmp_path, own, str(classes))[0] == own
    assert resolve_label_names(tmp_path, ["a", "b", "c"], str(classes))[0] == own


def test_classes_of_a_list_without_an_image_are_named(tmp_path: Path) -> None:
    file, classes = tmp_path / "a.parquet", tmp_path / "classes.txt"
    table = pa.table({"image": [{"bytes": b"", "path": "0.jpg"}] * 2, "label": [0, 2]})
    pq.write_table(table, file)
    for names, note in (
        (["a", "b", "c"], "1 class of class_list (b)"),
        (list("abcdefgh"), "6 classes of class_list (b, d, e, f, g, ...)"),
    ):
        classes.write_text("\n".join(names))
        assert f"without an image: {note}" in read_parquet(file, classes).notes
    pq.write_table(table.set_column(1, "label", [[0, 1]]), file)
    classes.write_text("a\nb")
    assert not any("without an image" in note for note in read_parquet(file, classes).notes)


def test_names_of_classes_are_read_without_spaces_and_blank_lines(tmp_path: Path) -> None:
    tar = tmp_path / "a.tar"
    write_tar(tar, {"a.jpg": "", "a.cls": "1"})
    assert read_tar(tar, ["cat", "dog \r", "", " ", ""]).images == [("a.jpg", "dog")]
