"""Manifests: labels by name and never by order, bad files as rows, wrong folders as one line."""

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from densecl.datasets.manifests import scan as scanning
from densecl.datasets.manifests.inspect import inspect_file
from densecl.datasets.manifests.listing import check_root, list_classes
from densecl.datasets.manifests.scan import run_in_parallel, scan_dataset
from densecl.datasets.storage import manifest
from densecl.datasets.storage.manifest import read_manifest, select_usable, write_manifest
from densecl.errors import DataError

SUITE = os.environ.get("DENSECL_SUITE")
WNIDS = [
    f"n{number:08d}" for number in range(100, 112)
]  # 12 classes: string order and number order differ


def draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8 + seed % 3, 10, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


def tree(root: Path, folders: list[str], images: int = 2, first: int = 0) -> Path:
    for place, folder in enumerate(sorted(folders)):
        for number in range(images):
            draw(root / folder / f"{number}.png", first + place * images + number)
    return root


def refused(message: str, call: object, *arguments: object) -> str:
    with pytest.raises(DataError, match=message) as error:
        call(*arguments)  # type: ignore[operator]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rows_are_re_derived(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", WNIDS[:3])
    (root / "README.txt").write_text("licence")
    (root / WNIDS[0] / "notes.txt").write_text("no image")
    (root / WNIDS[0] / "._0.png").write_bytes(b"litter of another system")
    (root / ".cache").mkdir()
    draw(root / WNIDS[0] / "below" / "0.png", 99)
    frame = scan_dataset("some", root, "wnid", list_classes(root), 1)
    assert list(frame.columns) == manifest.SCHEMA.names
    assert list(frame["path"]) == sorted(f"{wnid}/{n}.png" for wnid in WNIDS[:3] for n in range(2))
    for row in frame.itertuples():
        content = (root / row.path).read_bytes()
        assert row.image_id == f"some/{row.path}"
        assert row.wnid == row.path.split("/")[0] == list_classes(root)[row.label]
        assert (row.bytes, row.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        with Image.open(root / row.path) as image:
            assert (row.width, row.height) == image.size
            luma = np.asarray(image.convert("L"), float) / 255
            np.testing.assert_allclose(
                (row.brightness, row.contrast), (luma.mean(), luma.std()), rtol=1e-6
            )
        assert row.problem == ""
    kinds = {
        "label": "int64",
        "width": "int32",
        "height": "int32",
        "bytes": "int64",
        "brightness": "float32",
        "contrast": "float32",
    }
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == dict.fromkeys(
        manifest.SCHEMA.names, "str"
    ) | kinds


def test_integer_folders_are_the_label_and_not_their_place(tmp_path: Path) -> None:
    train = tree(tmp_path / "train", WNIDS, 1)
    root = tree(tmp_path / "v2", [str(label) for label in range(12)], 1)
    frame = scan_dataset("imagenet-v2", root, "index", list_classes(train), 1)
    assert {
        path.split("/")[0]: label for path, label in zip(frame["path"], frame["label"], strict=True)
    } == {str(label): label for label in range(12)}
    assert [WNIDS[label] for label in frame["label"]] == list(frame["wnid"])
    by_order = {
        folder: place for place, folder in enumerate(sorted(str(label) for label in range(12)))
    }
    assert by_order["2"] != 2  # what a reader by order would have said


def test_a_subset_of_classes_keeps_the_train_labels(tmp_path: Path) -> None:
    root = tree(tmp_path / "a", [WNIDS[7], WNIDS[3]])
    assert set(scan_dataset("a", root, "wnid", WNIDS, 1)["label"]) == {3, 7}


def test_folder_creation_order_and_workers_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tree(tmp_path / "1", WNIDS), tmp_path / "2"
    for folder in reversed(WNIDS):
        for file in sorted((first / folder).iterdir(), reverse=True):
            (second / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(file, second / folder)
    monkeypatch.setattr(scanning, "SERIAL_BYTES", 0)
    monkeypatch.setattr(scanning, "CHUNK_SIZE", 5)
    told: list[tuple[int, int]] = []
    one = scan_dataset("s", first, "wnid", list_classes(first), 1)
    two = scan_dataset(
        "s",
        second,
        "wnid",
        list_classes(second),
        2,
        progress=lambda done, total: told.append((done, total)),
    )
    pd.testing.assert_frame_equal(one, two)
    assert told == [(5, 24), (10, 24), (15, 24), (20, 24), (24, 24)]
    write_manifest(one, tmp_path / "one.parquet")
    write_manifest(two, tmp_path / "two.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_odd_names_survive_the_round_trip(tmp_path: Path) -> None:
    names = [
        "do\u0308g \u72d7 \U0001f415 \u2019(1)\u00a0%20.JPEG",
        "d\u00f6g.PnG",
        "new\nline.jpg",
        "<b>&amp;'\".webp",
    ]
    for seed, name in enumerate(names):
        draw(tmp_path / "set" / WNIDS[0] / name, seed)
    frame = scan_dataset("s", tmp_path / "set", "wnid", WNIDS, 1)
    write_manifest(frame, tmp_path / "deep" / "s.parquet")
    back = read_manifest(tmp_path / "deep" / "s.parquet")
    pd.testing.assert_frame_equal(frame, back)
    assert set(back["image_id"]) == {f"s/{WNIDS[0]}/{name}" for name in names}
    assert not list((tmp_path / "deep").glob("*.partial"))


def test_bad_files_are_rows_and_not_usable(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", WNIDS[:2])
    (root / WNIDS[0] / "empty.jpg").touch()
    frame = scan_dataset("s", root, "wnid", WNIDS, 1)
    assert (
        frame["brightness"].isna().tolist()
        == frame["contrast"].isna().tolist()
        == (frame["problem"] != "").tolist()
    )
    write_manifest(frame, tmp_path / "s.parquet")
    pd.testing.assert_frame_equal(read_manifest(tmp_path / "s.parquet"), frame)
    bad = frame[frame["problem"] != ""]
    assert [
        tuple(row) for row in bad[["path", "width", "height", "problem"]].itertuples(index=False)
    ] == [(f"{WNIDS[0]}/empty.jpg", 0, 0, "empty file")]
    assert len(select_usable(frame)) == 4
    left = select_usable(frame, [f"s/{WNIDS[1]}/0.png"])
    assert len(left) == 3
    assert list(left.index) == [0, 1, 2]


def test_missing_flat_and_empty_folders_are_reported(tmp_path: Path) -> None:
    refused(
        r"gone: no such folder or archive; expected a folder", check_root, tmp_path / "gone", "wnid"
    )
    draw(tmp_path / "flat" / "0.png", 0)
    refused(
        r"0\.png: found a file; expected a folder", check_root, tmp_path / "flat" / "0.png", "wnid"
    )
    refused(
        r"flat: found no class folders and 1 image files", check_root, tmp_path / "flat", "wnid"
    )
    root = tree(tmp_path / "set", WNIDS[:2])
    draw(root / WNIDS[5] / "images" / "0.png", 0)
    for call in (
        lambda: check_root(root, "wnid"),
        lambda: list_classes(root),
        lambda: scan_dataset("s", root, "wnid", WNIDS, 1),
    ):
        refused(
            rf"{WNIDS[5]}: empty class folder: found no image file and 1 folders; expected \.jpeg",
            call,
        )
    refused(rf"found folder '{WNIDS[0]}', expected an integer", check_root, root, "index")


def test_folders_outside_the_class_list_are_reported(tmp_path: Path) -> None:
    root = tree(tmp_path / "r", [WNIDS[0], "n99999999"])
    message = refused("n99999999", scan_dataset, "r", root, "wnid", WNIDS, 1)
    assert (
        f"expected one of the 12 classes of the train set ({WNIDS[0]}, {WNIDS[1]}, {WNIDS[2]}, ...)"
        in message
    )
    integers = tree(tmp_path / "v2", ["0", "12"])
    refused("need layout: index", scan_dataset, "v2", integers, "wnid", WNIDS, 1)
    refused("found index 12, expected 0 to 11", scan_dataset, "v2", integers, "index", WNIDS, 1)
    padded = tree(tmp_path / "padded", ["1", "01"])
    refused("'01' and '1' are both class 1", scan_dataset, "v2", padded, "index", WNIDS, 1)


def test_integer_names_of_train_are_names(tmp_path: Path) -> None:
    """Sorted as text, the third of twelve integer classes is "10": an index would be read as
    another class.
    """
    root = tree(tmp_path / "set", [str(label) for label in range(12)], 1)
    classes = list_classes(root)
    assert classes[2] == "10"
    assert list(scan_dataset("s", root, "wnid", classes, 1)["wnid"]) == classes
    refused("set layout: wnid", scan_dataset, "s", root, "index", classes, 1)


def test_links_that_leave_or_loop_are_reported(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", WNIDS[:2])
    linked = tmp_path / "linked"
    linked.symlink_to(root)
    assert len(scan_dataset("s", linked, "wnid", WNIDS, 1)) == 4  # the root itself may be a link
    odd = root / WNIDS[0] / "odd.png"
    draw(tmp_path / "outside.png", 0)
    for target, message in (
        (odd, "to itself"),
        (tmp_path / "no", "nothing"),
    ):
        odd.symlink_to(target)
        refused(rf"odd\.png: link .*{message}", scan_dataset, "s", root, "wnid", WNIDS, 1)
        odd.unlink()
    odd.symlink_to(root / WNIDS[1] / "0.png")
    assert len(scan_dataset("s", root, "wnid", WNIDS, 1)) == 5
    (root / WNIDS[2]).symlink_to(root)
    refused(rf"{WNIDS[2]}: link that loops", check_root, root, "wnid")


def test_folders_and_devices_named_like_images_are_reported(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", WNIDS[:1])
    os.mkfifo(root / WNIDS[0] / "pipe.jpg")
    refused(r"pipe\.jpg: found a folder or a device", scan_dataset, "s", root, "wnid", WNIDS, 1)


def test_names_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", WNIDS[:1])
    try:
        shutil.copy(root / WNIDS[0] / "0.png", os.fsencode(root / WNIDS[0]) + b"/\xff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    refused(r"\\udcff\.png: the name holds bytes", scan_dataset, "s", root, "wnid", WNIDS, 1)


def test_wrong_manifests_are_reported_by_column(tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    refused("no such file.*run the stage prepare", read_manifest, path)
    path.write_text("text")
    refused("not readable as Parquet", read_manifest, path)
    table = pa.Table.from_pandas(
        scan_dataset("s", tree(tmp_path / "set", WNIDS[:1]), "wnid", WNIDS, 1),
        schema=manifest.SCHEMA,
    )
    label = table.schema.get_field_index("label")
    pq.write_table(table.set_column(label, "label", table["label"].cast(pa.string())), path)
    refused("column label: found string, expected int64", read_manifest, path)
    pq.write_table(table.drop_columns(["sha256"]), path)
    refused("column sha256: found no such column, expected string", read_manifest, path)
    pq.write_table(table.append_column("more", table["path"]), path)
    refused("found columns .*more", read_manifest, path)


@pytest.mark.slow
@pytest.mark.skipif(not SUITE, reason="DENSECL_SUITE is unset")
def test_suite_agrees_with_its_own_lists() -> None:
    suite = Path(SUITE or "")
    classes = list_classes(suite / "imagenet/train")
    listed = pd.read_csv(suite / "classes.csv")
    assert classes == list(listed["wnid"])
    sums = dict(
        line.split("  ", 1)[::-1] for line in (suite / "SHA256SUMS").read_text().splitlines()
    )
    for folder, layout, images in [
        ("imagenetv2-matched-frequency-format-val", "index", 900),
        ("imagenet-a", "wnid", 304),
        ("stylized/val", "wnid", 825),
    ]:
        frame = scan_dataset("s", suite / folder, layout, classes, 1)  # type: ignore[arg-type]
        assert len(frame) == images
        assert set(frame["problem"]) == {""}
        assert all(
            sums[f"{folder}/{path}"] == sha
            for path, sha in zip(frame["path"], frame["sha256"], strict=True)
        )
        if layout == "index":
            assert [int(path.split("/")[0]) for path in frame["path"]] == list(frame["label"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_is_gone_is_a_row_with_the_reason(tmp_path, workers):
    (info,) = run_in_parallel(inspect_file, [tmp_path / "gone.png"], workers)
    assert info.problem == "cannot be opened: no such file or directory"
