"""ImageNet's flat validation archive: labels from the devkit, whose ids are not in wnid order."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from densecl.config.params import DatasetParams, ParamsError, load_params
from densecl.datasets.manifests import devkit
from densecl.datasets.manifests.listing import check_root, list_dataset
from densecl.datasets.manifests.scan import scan_dataset
from densecl.errors import DataError
from tests.conftest import draw_set

WNIDS = [f"n{number:08d}" for number in range(100, 105)]
IDS = {
    "n00000100": 3,
    "n00000101": 5,
    "n00000102": 1,
    "n00000103": 2,
    "n00000104": 4,
}  # as ImageNet's, in another order
LABELS = [4, 0, 2, 2, 3, 1, 0, 4]  # of validation image 1, 2, ...


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """kit/ as the real one unpacks, val/ as the flat archive does, moved/ after the usual move into
    class folders.
    """
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "kit/ILSVRC2012_devkit_t12/data"
    data.mkdir(parents=True)
    (data / devkit.GROUND_TRUTH_FILE).write_text(
        "".join(f"{IDS[WNIDS[label]]}\n" for label in LABELS)
    )
    rows = [(of, wnid, f"words of {wnid}", 0) for wnid, of in IDS.items()] + [
        (1001, "n00001740", "entity", 5)
    ]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    savemat(data / devkit.META_FILE, {"synsets": np.array(rows, dtype=kinds)[:, None]})
    draw_set(tmp_path / "drawn", len(LABELS), folders=("any",))
    (tmp_path / "val").mkdir()
    for number, (file, label) in enumerate(
        zip(sorted((tmp_path / "drawn/any").iterdir()), LABELS, strict=True), 1
    ):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        shutil.copy(file, tmp_path / "val" / name)
        (tmp_path / "moved" / WNIDS[label]).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "moved" / WNIDS[label] / name)
    return tmp_path


def packed(folder: Path, name: str, mode: str, top: str) -> Path:
    with tarfile.open(folder.parent / name, mode) as bundle:  # type: ignore[call-overload]
        bundle.add(folder, top)
    return folder.parent / name


def test_labels_are_those_of_the_moved_folders(place: Path) -> None:
    moved = scan_dataset("imagenet", place / "moved", "wnid", WNIDS, 1)
    expected = sorted(
        zip(moved["path"].str.rpartition("/")[2], moved["label"], moved["sha256"], strict=True)
    )
    roots = [
        place / "val",
        packed(place / "val", "flat.tar", "w", "."),
        packed(place / "val", "topped.tar", "w", "val"),
    ]
    kits = [
        place / "kit",
        place / "kit/ILSVRC2012_devkit_t12",
        place / "kit/ILSVRC2012_devkit_t12/data",
        packed(place / "kit/ILSVRC2012_devkit_t12", "kit.tar.gz", "w:gz", "ILSVRC2012_devkit_t12"),
    ]
    for root in roots:
        for kit in kits:
            frame = scan_dataset("imagenet", root, "devkit", WNIDS, 1, devkit=str(kit))
            found = zip(
                frame["path"].str.rpartition("/")[2], frame["label"], frame["sha256"], strict=True
            )
            assert list(found) == expected
            assert list(frame["wnid"]) == [WNIDS[label] for label in frame["label"]]
    assert [row[1] for row in expected] == LABELS
    assert [
        IDS[WNIDS[label]] - 1 for label in LABELS
    ] != LABELS  # what a reader of ids as places would have said


def refused(place: Path, message: str, root: str = "val", kit: str | None = "kit") -> None:
    with pytest.raises(DataError, match=message) as error:
        scan_dataset(
            "imagenet", place / root, "devkit", WNIDS[:4], 1, devkit=kit and str(place / kit)
        )
    assert "\n" not in str(error.value)


def test_errors_are_one_line(place: Path) -> None:
    refused(place, "needs `devkit`", kit=None)
    refused(place, "found no ILSVRC2012_validation_ground_truth.txt", kit="val")
    refused(place, "found no image files and 5 folders; .* set layout: wnid", root="moved")
    shutil.copy(
        place / "val/ILSVRC2012_val_00000001.JPEG", place / "val/ILSVRC2012_val_00000009.JPEG"
    )
    (place / "val/ILSVRC2012_val_00000001.JPEG").unlink()
    (place / "val/ILSVRC2012_val_00000008.JPEG").unlink()
    refused(place, r"found image 9, expected 1 to 8")
    shutil.move(place / "val/ILSVRC2012_val_00000009.JPEG", place / "val/picture.JPEG")
    refused(place, r"picture\.JPEG: found this name, expected ILSVRC2012_val_00000001\.JPEG")
    truth = place / "kit/ILSVRC2012_devkit_t12/data" / devkit.GROUND_TRUTH_FILE
    truth.write_text("1\n1001\n")
    refused(place, "line 2: found '1001', expected an id")
    (truth.parent / devkit.META_FILE).write_bytes(b"text")
    refused(place, r"meta\.mat: expected the table")
    with pytest.raises(DataError, match=r"found no class folders and .* set layout: devkit"):
        check_root(place / "val", "wnid")


def test_classes_that_were_not_trained_and_images_without_a_file_are_counted(place: Path) -> None:
    kit, trained = str(place / "kit"), WNIDS[:4]
    listing = list_dataset(place / "val", "devkit", trained, kit)
    assert [(trained[label]) for _, label in listing.images] == [
        WNIDS[label] for label in LABELS if label < 4
    ]
    others = [label for label in LABELS if label >= 4]
    assert set(others) == {4}
    assert listing.skipped == {"of 1 class that the train set does not have": len(others)}
    assert listing.notes == ()
    (place / "val/ILSVRC2012_val_00000001.JPEG").unlink()
    (place / "val/ILSVRC2012_val_00000002.psd").touch()
    (place / "val/below").mkdir()
    (place / "val/below/ILSVRC2012_val_00000003.JPEG").touch()
    listing = list_dataset(place / "val", "devkit", WNIDS, kit)
    assert len(listing.images) == len(LABELS) - 1
    assert listing.skipped == {"extension .psd": 1, "in subfolders": 1}
    assert listing.notes == ("1 of the ground truth's 8 images have no file",)
    with pytest.raises(DataError, match="none of them of the 1 classes of the train set"):
        list_dataset(place / "val", "devkit", ["cat"], kit)


def test_layout_and_kit_need_each_other(tmp_path: Path) -> None:
    text = Path(__file__).parents[1].joinpath("small.yaml").read_text()
    for change in ("layout: devkit", "devkit: kit"):
        (tmp_path / "params.yaml").write_text(
            text.replace("imagenet: {root: ", f"imagenet: {{{change}, root: ", 1)
        )
        with pytest.raises(
            ParamsError,
            match=r"datasets.imagenet: .*expected both layout devkit and a devkit, or neither",
        ):
            load_params(tmp_path / "params.yaml")
    assert DatasetParams(root="a", tracked_by="a", layout="devkit", devkit="kit").devkit == "kit"


def test_real_meta_files_read_the_same(place: Path) -> None:
    """The real file's own form: a column of structs, compressed."""
    path = place / "kit/ILSVRC2012_devkit_t12/data" / devkit.META_FILE
    rows = [(np.uint16(of), wnid) for wnid, of in IDS.items()] + [(np.uint16(1860), "n00001740")]
    buffer = io.BytesIO()
    savemat(
        buffer,
        {"synsets": np.array(rows, [("ILSVRC2012_ID", "O"), ("WNID", "O")])[:, None]},
        do_compression=True,
    )
    path.write_bytes(buffer.getvalue())
    assert devkit.read_ground_truth(place / "kit") == [WNIDS[label] for label in LABELS]
