"""A copy of a dataset in another layout has the images and labels of its folders; labels that do
not fit are refused.
"""

import csv
import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from densecl.config.params import DatasetParams
from densecl.datasets.imagenet import load_lemmas, read_lines
from densecl.datasets.manifests.layouts.class_lists import KNOWN_LISTS, resolve_label_names
from densecl.datasets.manifests.layouts.sources import (
    check_source,
    list_source,
    list_train_classes,
)
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.storage.image_root import read_file
from densecl.errors import DataError
from tests.conftest import WNIDS, draw_set

ORDER = [WNIDS[2], WNIDS[0], WNIDS[1]]  # of the labels: not sorted


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three classes of four images; the project's folder is elsewhere."""
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return draw_set(tmp_path / "folder", 4, folders=tuple(WNIDS[:3]))


def source(root: Path, layout: str, **values: object) -> DatasetParams:
    return DatasetParams(root=str(root), tracked_by="x", layout=layout, **values)


def write_list(path: Path, names: list[str]) -> str:
    path.write_text("\n".join(names) + "\n", encoding="utf-8")
    return str(path)


def write_shards(
    folder: Path, root: Path, files: int = 2, own: bool = False, json_labels: bool = False
) -> None:
    """As timm's and clip-benchmark's: KEY.jpg and KEY.cls or KEY.json in several tars."""
    root.mkdir()
    images = sorted(folder.glob("*/*"))
    for shard in range(files):
        with tarfile.open(root / f"set-train-{shard:04d}.tar", "w") as tar:
            for number, path in enumerate(images[shard::files]):
                label = ORDER.index(path.parent.name)
                name = f"{path.parent.name}_{number}" if own else f"s{number:05d}"
                members = {f"{name}.jpg": path.read_bytes()}
                if json_labels:
                    filename = f"{path.parent.name}/{path.name}"
                    members[f"{name}.json"] = json.dumps(
                        {"label": label, "filename": filename}
                    ).encode()
                else:
                    members[f"{name}.cls"] = str(label).encode()
                for member, content in members.items():
                    info = tarfile.TarInfo(member)
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))


def write_parquet(
    folder: Path, root: Path, names: list[str] | None = None, labels: list[str] | None = None
) -> None:
    """As Hugging Face's `datasets`: two files of small row groups, with or without ClassLabel."""
    (root / "data").mkdir(parents=True)
    images = sorted(folder.glob("*/*"))
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
    for part in range(2):
        rows = images[part::2]
        table = pa.table(
            {
                "image": [{"bytes": path.read_bytes(), "path": path.name} for path in rows],
                "label": labels or [ORDER.index(path.parent.name) for path in rows],
            }
        )
        pq.write_table(
            table.replace_schema_metadata(metadata),
            root / "data" / f"train-{part:05d}-of-00002.parquet",
            row_group_size=2,
        )


def scan(settings: DatasetParams, classes: list[str] = WNIDS) -> pd.DataFrame:
    listing = list_source(settings, classes)
    frame = scan_listing("s", Path(settings.root), listing, classes, 1).frame
    assert len(frame) + listing.skipped.total() >= len(frame) == check_source(settings).images
    for row in frame.itertuples():  # the bytes are those of the row's class
        assert len(read_file(Path(settings.root) / row.path)) == row.bytes
    return frame


def facts(frame: pd.DataFrame) -> pd.DataFrame:
    """All but the names, by content."""
    rest = frame.drop(columns=["image_id", "path"])
    return rest.sort_values("sha256").reset_index(drop=True)


@pytest.mark.parametrize("form", ["shards", "json", "own names", "one tar", "parquet", "one file"])
def test_copies_have_the_labels_and_bytes_of_folders(
    tmp_path: Path, folder: Path, form: str
) -> None:
    root, classes = tmp_path / "copy", write_list(tmp_path / "classes.txt", ORDER)
    if form in ("parquet", "one file"):
        write_parquet(folder, root)
        settings = source(root, "parquet", class_list=classes)
        if form == "one file":
            shutil.copy(root / "data/train-00000-of-00002.parquet", tmp_path / "one")
            settings = source(tmp_path / "one", "parquet", class_list=classes)
    else:
        write_shards(folder, root, own=form == "own names", json_labels=form == "json")
        has_wnids = form in ("own names", "json")  # they are the class list, if none is given
        settings = source(root, "webdataset", class_list=None if has_wnids else classes)
        if form == "one tar":
            settings = source(root / "set-train-0000.tar", "webdataset", class_list=classes)
    found = facts(scan(settings))
    expected = facts(scan(source(folder, "wnid")))
    if form.startswith("one"):
        expected = expected[expected["sha256"].isin(found["sha256"])].reset_index(drop=True)
        assert len(expected) == 6
    pd.testing.assert_frame_equal(found, expected)
    assert list_train_classes(settings) == sorted(WNIDS[:3])


def test_names_of_imagenet_in_english_are_recognised_in_their_order() -> None:
    for file in KNOWN_LISTS:
        wnids = list(read_lines(file))
        full = [load_lemmas()[wnid] for wnid in wnids]  # Hugging Face's
        short = [words.split(", ")[-1] for words in full]  # clip-benchmark's
        rewritten = short.copy()
        rewritten[::30] = [f"qqq{n}" for n in range(len(short[::30]))]
        for names in (full, short, rewritten):
            assert list(resolve_label_names(Path("r"), names, None)[0]) == wnids
        _, note = resolve_label_names(Path("r"), rewritten, None)
        assert f"also {len(short[::30])} in other words: qqq0, qqq1, " in note
        short[::3] = [f"qqq{n}" for n in range(len(short[::3]))]
        with pytest.raises(DataError, match=rf"found {len(short[::3])} of {len(short)} names that"):
            resolve_label_names(Path("r"), short, None)
        shuffled = list(np.random.default_rng(0).permutation(full))
        with_other_order, note = resolve_label_names(Path("r"), list(dict.fromkeys(shuffled)), None)
        assert list(with_other_order) != wnids
        assert "brings along" in note


def test_a_list_of_other_wnids_stays_as_it_is() -> None:
    wnids = list(read_lines(KNOWN_LISTS[0]))
    for place, other in ((-1, "n99999999"), (0, wnids[1])):
        names = wnids.copy()
        names[place] = other
        if other in wnids:
            names[1] = wnids[0]
        assert list(resolve_label_names(Path("r"), names, None)[0]) == names


def test_other_names_are_the_classes(tmp_path: Path, folder: Path) -> None:
    write_parquet(folder, tmp_path / "copy", names=["owl", "cat", "dog"])
    settings = source(tmp_path / "copy", "parquet")
    assert list_train_classes(settings) == ["cat", "dog", "owl"]
    listing = list_source(settings, ["cat", "owl"])
    assert sorted(label for _, label in listing.images) == [0] * 4 + [1] * 4
    assert listing.skipped == {"of 1 class that the train set does not have": 4}
    assert any("encoded anew" in note for note in listing.notes)


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, folder: Path, layout: str) -> None:
    root = tmp_path / "copy"
    write = write_shards if layout == "webdataset" else write_parquet
    write(folder, root)
    short = write_list(tmp_path / "short.txt", ORDER[:2])
    for classes, message in (
        (None, "nothing says of which classes; name a file"),
        (short, "found label 2, expected 0 to 1"),
        (write_list(tmp_path / "twice.txt", [*ORDER, ORDER[0]]), "line 4: found .* again"),
        (str(tmp_path / "none.txt"), "no such file"),
    ):
        with pytest.raises(DataError, match=message):
            check_source(source(root, layout, class_list=classes))
    (root / "classnames.txt").write_text("owl\ncat\ndog\n")
    if layout == "webdataset":
        with pytest.raises(DataError, match=r"found 2 classes, expected 3, as .*copy names"):
            check_source(source(root, layout, class_list=short))
        assert list_train_classes(source(root, layout)) == ["cat", "dog", "owl"]


def test_a_wnid_in_a_name_against_its_label_is_refused(tmp_path: Path, folder: Path) -> None:
    write_shards(folder, tmp_path / "copy", own=True)
    wrong = write_list(tmp_path / "wrong.txt", [ORDER[1], ORDER[0], ORDER[2]])
    with pytest.raises(DataError, match=r"label \d, which is .*, on files whose names hold"):
        check_source(source(tmp_path / "copy", "webdataset", class_list=wrong))


def test_a_class_of_several_wnids_needs_a_name(tmp_path: Path, folder: Path) -> None:
    for file in sorted(folder.glob("*/*")):
        wnid = file.parent.name
        label = WNIDS[0] if wnid == WNIDS[1] else wnid
        file.rename(folder / label / f"{wnid}_{file.name}")
    write_parquet(folder, tmp_path / "copy")
    named = write_list(tmp_path / "named.txt", ["dog", "cat", "owl"])
    settings = source(tmp_path / "copy", "parquet", class_list=named)
    assert list_train_classes(settings) == ["cat", "dog"]
    with pytest.raises(DataError, match="files are mixed up, or its classes hold several"):
        check_source(source(tmp_path / "copy", "parquet"))
    wnids = write_list(tmp_path / "wnids.txt", ORDER)
    with pytest.raises(DataError, match=r"label 1, which is .*, on files whose names hold"):
        check_source(source(tmp_path / "copy", "parquet", class_list=wnids))


def test_several_splits_in_one_folder_need_a_name(tmp_path: Path, folder: Path) -> None:
    root, classes = tmp_path / "copy", write_list(tmp_path / "classes.txt", ORDER)
    write_parquet(folder, root)
    shutil.copy(
        root / "data/train-00000-of-00002.parquet", root / "data/test-00000-of-00001.parquet"
    )
    (root / "README.md").write_text("card")
    with pytest.raises(DataError, match="shards of data/test, data/train, expected one"):
        check_source(source(root, "parquet", class_list=classes))
    found = check_source(source(root, "parquet", class_list=classes, split="train"))
    assert (found.images, dict(found.skipped)) == (
        12,
        {"extension .md": 1, "shards of another split": 1},
    )


def test_older_names_with_hashes_are_one_split(tmp_path: Path, folder: Path) -> None:
    root, classes = tmp_path / "copy", write_list(tmp_path / "classes.txt", ORDER)
    write_parquet(folder, root)
    for number, file in enumerate(sorted((root / "data").iterdir())):
        file.rename(file.with_name(f"{file.stem}-3ea0a3b9d8b0b2c{number}.parquet"))
    assert check_source(source(root, "parquet", class_list=classes)).images == 12


@pytest.mark.parametrize("layout", ["webdataset", "parquet"])
def test_links_to_shards_are_followed_as_to_images(
    tmp_path: Path, folder: Path, layout: str
) -> None:
    real, root = tmp_path / "real", tmp_path / "copy"
    (write_shards if layout == "webdataset" else write_parquet)(folder, real)
    (real / ".cache").write_text("")
    root.mkdir()
    (root / "part").symlink_to(real)
    values = {"class_list": write_list(tmp_path / "classes.txt", ORDER)}
    found = check_source(source(root, layout, **values))
    assert (found.images, found.skipped["hidden"]) == (12, 1)
    with pytest.raises(DataError, match="part: link that leaves "):
        check_source(source(root, layout, follow_links="inside", **values))
    (root / "part").unlink()
    for number, file in enumerate(real.rglob("*-*")):
        (root / f"train-{number}{file.suffix}").symlink_to(file)
    assert check_source(source(root, layout, **values)).images == 12
    with pytest.raises(DataError, match="link that leaves "):
        check_source(source(root, layout, follow_links="inside", **values))
    os.mkfifo(root / f"train-9{file.suffix}")
    with pytest.raises(DataError, match=r"train-9.*: found a folder or a device"):
        check_source(source(root, layout, **values))


def test_shards_that_are_missing_or_cut_are_said(tmp_path: Path, folder: Path) -> None:
    root, classes = tmp_path / "copy", write_list(tmp_path / "classes.txt", ORDER)
    write_shards(folder, root, files=3)
    info = {"filenames": [f"set-train-{n:04d}.tar" for n in range(3)], "shard_lengths": [4, 4, 5]}
    (root / "_info.json").write_text(json.dumps({"splits": {"train": info}}))
    (root / "set-train-0000.tar").unlink()
    notes = list_source(source(root, "webdataset", class_list=classes), WNIDS).notes
    assert any("3 shards of _info.json 1 are missing and 1 hold another" in note for note in notes)
    cut = root / "set-train-0001.tar"
    cut.write_bytes(cut.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"0001\.tar: damaged or cut archive"):
        check_source(source(root, "webdataset", class_list=classes))


def test_names_of_another_set_are_not_taken(tmp_path: Path, folder: Path) -> None:
    root = tmp_path / "copy"
    write_shards(folder, root)
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    (tmp_path / "classnames.txt").write_text("d\ne\nf\n")
    with pytest.raises(DataError, match="nothing says of which classes"):
        check_source(source(root, "webdataset"))
    (root / "info.json").write_text(json.dumps({"splits": ["train"]}))
    classes = write_list(tmp_path / "list.txt", ORDER)
    notes = list_source(source(root, "webdataset", class_list=classes), WNIDS).notes
    assert any("copy/info.json is not as timm writes it" in note for note in notes)
    (root / "info.json").unlink()
    root = root.rename(tmp_path / "test")  # clip-benchmark's names are beside its splits
    listing = list_source(source(root, "webdataset"), ["d", "e", "f"])
    assert f"names of classes are those of {tmp_path / 'classnames.txt'}" in listing.notes
    (root / "_info.json").write_text(json.dumps({"class_names": ["owl", "cat", "dog"]}))
    assert list_train_classes(source(root, "webdataset")) == ["cat", "dog", "owl"]


def test_a_parquet_file_without_bytes_is_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "copy").mkdir()
    images = [{"bytes": None, "path": "1.jpg"}]
    table = pa.table({"image": pa.array(images), "label": [0]})
    pq.write_table(
        table.cast(
            pa.schema(
                {
                    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
                    "label": pa.int64(),
                }
            )
        ),
        tmp_path / "copy/a.parquet",
    )
    settings = source(
        tmp_path / "copy", "parquet", class_list=write_list(tmp_path / "c.txt", [WNIDS[0]])
    )
    listing = list_source(settings, WNIDS)
    with pytest.raises(DataError, match="row 0: found no bytes of an image"):
        scan_listing("s", tmp_path / "copy", listing, WNIDS, 1)


@pytest.fixture
def kaggle(tmp_path: Path, folder: Path) -> Path:
    root = tmp_path / "kaggle"
    shutil.copytree(folder, root / "ILSVRC/Data/CLS-LOC/train")
    flat = root / "ILSVRC/Data/CLS-LOC/val"
    flat.mkdir()
    rows = []
    for number, path in enumerate(sorted(folder.glob("*/*")), 1):
        name = f"ILSVRC2012_val_{number:08d}"
        shutil.copy(path, flat / f"{name}.JPEG")
        wnid = path.parent.name
        rows.append((name, f"{wnid} 1 2 3 4 " + (f"{wnid} 5 6 7 8" if number % 2 else "")))
    with (root / "LOC_val_solution.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("ImageId", "PredictionString"), *reversed(rows)])
    return root


def test_kaggle_is_labelled_by_folders_and_by_its_solution(
    tmp_path: Path, folder: Path, kaggle: Path
) -> None:
    expected = facts(scan(source(folder, "wnid")))
    bundle = Path(shutil.make_archive(str(tmp_path / "kaggle"), "zip", kaggle))
    for place in (kaggle, bundle):
        for split in ("train", "val"):
            settings = source(place / "ILSVRC/Data/CLS-LOC" / split, "kaggle")
            pd.testing.assert_frame_equal(facts(scan(settings)), expected)
    flat = kaggle / "ILSVRC/Data/CLS-LOC/val"
    (flat / "ILSVRC2012_val_00000001.JPEG").rename(flat / "other.JPEG")
    listing = list_source(source(flat, "kaggle"), WNIDS)
    assert listing.skipped == {"without a row in LOC_val_solution.csv": 1}
    assert "1 rows of LOC_val_solution.csv have no file" in listing.notes
    (tmp_path / "linked").symlink_to(flat)
    assert list_source(source(tmp_path / "linked", "kaggle"), WNIDS).images == listing.images
    solution = kaggle / "LOC_val_solution.csv"
    text = solution.read_text()
    for change, message in (
        (text.replace("1 2 3 4", "1 2 3 4 n00000000 1 2 3 4", 1), "line 2: found image"),
        (text.replace("ImageId", "Id"), "found columns Id, PredictionString"),
        (text.replace(",", ',"', 1) + " " * 140_000, "line 1: found no CSV .* quotes"),
        (text + '"' + "x" * 140_000, "found no CSV .* quotes"),
    ):
        solution.write_text(change)
        with pytest.raises(DataError, match=message):
            check_source(source(flat, "kaggle"))
    solution.unlink()
    with pytest.raises(DataError, match=r"no LOC_val_solution\.csv beside them or above"):
        check_source(source(flat, "kaggle"))


def test_labels_of_two_kinds_are_refused(tmp_path: Path, folder: Path) -> None:
    root, classes = tmp_path / "copy", write_list(tmp_path / "classes.txt", ORDER)
    write_parquet(folder, root)
    write_parquet(folder, tmp_path / "named", labels=["cat"] * 6)
    shutil.copy(tmp_path / "named/data/train-00000-of-00002.parquet", root / "data")
    with pytest.raises(DataError, match=r"found labels that are names .* integers .*one kind"):
        check_source(source(root, "parquet", class_list=classes))


def write_map(path: Path, rows: list[tuple[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # as spreadsheets write it
        csv.writer(file).writerows([("folder", "class"), *rows])
    return str(path)


def test_a_map_joins_folders_to_classes_and_leaves_out_others(tmp_path: Path) -> None:
    root = draw_set(tmp_path / "own", 2, folders=("my cats", "more cats", "dogs", "cars", "misc"))
    rows = [("my cats", "cat"), ("more cats", "cat"), ("dogs", "dog"), ("absent", "dog")]
    settings = source(root, "wnid", class_map=write_map(tmp_path / "m.csv", rows))
    assert list_train_classes(settings) == ["cat", "dog"]
    listing = list_source(settings, ["cat", "dog"])
    assert [label for _, label in listing.images] == [1, 1, 0, 0, 0, 0]
    assert listing.skipped == {"in 2 folders that class_map does not name": 4}
    # Of a subset of the classes, the others are left out; any other name is a slip.
    synset = [("my cats", "n01440764"), ("dogs", "n01443537")]
    settings = source(root, "wnid", class_map=write_map(tmp_path / "w.csv", synset))
    listing = list_source(settings, ["n01443537"])
    assert listing.skipped == {
        "in 3 folders that class_map does not name": 6,
        "of 1 class that the train set does not have": 2,
    }
    slip = write_map(tmp_path / "s.csv", [("dogs", "dgo"), ("cars", "dog")])
    with pytest.raises(DataError, match="class_map says class 'dgo', expected one of the 1"):
        list_source(source(root, "wnid", class_map=slip), ["dog"])
    for rows, message in (
        ([("dogs", "a"), ("dogs", "b")], "line 3: found folder 'dogs' and class 'b'"),
        ([("dogs", "")], "line 2: found folder 'dogs' and class ''"),
        ([("x", "a")], "none of which .*own has"),
        ([], "found no row"),
    ):
        wrong = source(root, "wnid", class_map=write_map(tmp_path / "x.csv", rows))
        with pytest.raises(DataError, match=message):
            check_source(wrong)


def test_folders_that_are_not_used_may_have_no_image(tmp_path: Path) -> None:
    root = draw_set(tmp_path / "own", 2, folders=("cats", "dogs"))
    (root / "annotations").mkdir()
    (root / "annotations/x.xml").write_text("<a/>")
    rows = [("cats", "cat"), ("dogs", "dog")]
    mapped = source(root, "wnid", class_map=write_map(tmp_path / "m.csv", rows))
    assert list_train_classes(mapped) == ["cat", "dog"]
    groups = source(root, "groups")
    for settings, classes in ((mapped, ["cat", "dog"]), (groups, ["cats", "dogs"])):
        assert check_source(settings).images == 4
        listing = list_source(settings, classes)
        assert (len(listing.images), dict(listing.skipped)) == (4, {"extension .xml": 1})
    with pytest.raises(DataError, match="annotations: empty class folder"):
        list_source(groups, ["annotations", "cats"])
    with pytest.raises(DataError, match="annotations: empty class folder"):
        check_source(source(root, "wnid"))
