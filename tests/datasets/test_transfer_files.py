"""Entries of `transfer`: every file of theirs is used, counted or refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from densecl import paths
from densecl.datasets.storage.transfer import read_skipped
from densecl.errors import DataError
from tests.datasets.transfer_entries import XML, build_voc, prepare, save_image, save_mask

OBJECT = np.pad(np.full((6, 6), 255), 3)


@pytest.fixture(autouse=True)
def _in_project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))


def write(path: Path, content: str | bytes = XML) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def count_skipped() -> dict[str, int]:
    return read_skipped(paths.transfer_file("x"))


def test_boxes_that_do_not_exist_are_refused_as_masks_are(tmp_path):
    save_image(tmp_path / "images" / "1.png")
    for folder, options in (("boxes", {}), ("masks", {"mask_values": "object"})):
        place = tmp_path / "nowhere"
        with pytest.raises(DataError, match=f"{place}: no such folder or archive"):
            prepare(tmp_path, root=str(tmp_path / "images"), **{folder: str(place)}, **options)
    write(tmp_path / "1.xml")
    with pytest.raises(DataError, match=r"1.xml: found a file; expected a folder"):
        prepare(tmp_path, root=str(tmp_path / "images"), boxes=str(tmp_path / "1.xml"))


def test_a_class_named_background_is_refused_for_objects_only(tmp_path):
    for name in ("background", "dog"):
        save_image(tmp_path / "images" / name / "1.png")
        save_mask(tmp_path / "masks" / name / "1.png", OBJECT)
    root, masks = str(tmp_path / "images"), str(tmp_path / "masks")
    with pytest.raises(DataError, match=r"images/background: found a class named .* rename"):
        prepare(tmp_path, root=root, masks=masks, mask_values="object")
    assert len(prepare(tmp_path, root=root)) == 2


def test_files_beside_masks_and_boxes_are_counted_by_reason(tmp_path):
    masks, boxes = tmp_path / "masks", tmp_path / "xml"
    for number, suffix in enumerate((".png", ".PNG", ".jpg", ".bmp", ".tif", ".gif")):
        save_image(tmp_path / "images" / "dog" / f"{number}.jpg", seed=number)
        save_mask(masks / "dog" / f"{number}{suffix}", OBJECT)
    save_mask(masks / "cat" / "9.png", OBJECT)  # a folder without images
    for path in (masks / "dog" / "notes.txt", boxes / "dog" / "notes.txt", boxes / "notes.txt"):
        write(path, "x")
    for name in (
        "dog/0.XML",
        "dog/1.xml",
        "dog/1.XML",
        "dog/8.xml",
        "cat/9.xml",
        "dog/below/a.xml",
    ):
        write(boxes / name)
    options = {"masks": str(masks), "mask_values": "object", "boxes": str(boxes)}
    rows = prepare(tmp_path, root=str(tmp_path / "images"), **options)
    assert list(rows["mask"]) == ["dog/0.png", "dog/1.PNG", "", "", "", ""]
    assert list(rows["boxes"] != "[]") == [True, True, False, False, False, False]
    assert count_skipped() == {
        "in a folder of masks, no PNG": 4,
        "mask without an image": 1,
        "extension .txt": 3,
        "boxes without an image": 3,  # of two names that differ in case, one is used
        "in subfolders": 1,
    }


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_boxes_in_the_folder_of_images_or_masks_count_once(tmp_path, folder):
    save_image(tmp_path / "images" / "1.jpg")
    save_mask(tmp_path / "masks" / "1.png", OBJECT)
    for name in ("1.xml", "2.xml"):
        write(tmp_path / folder / name)
    place = str(tmp_path / folder)
    options = {"masks": str(tmp_path / "masks"), "mask_values": "object", "boxes": place}
    assert prepare(tmp_path, root=str(tmp_path / "images"), **options)["boxes"].iloc[0] != "[]"
    assert count_skipped() == {"boxes without an image": 1}


def test_boxes_in_class_folders_leave_the_counts_of_other_files(tmp_path):
    save_image(tmp_path / "dog" / "1.jpg")
    save_mask(tmp_path / "masks" / "dog" / "1.png", OBJECT)
    for name in ("dog/1.xml", "dog/2.XML", "3.xml", "dog/below/1.xml", "masks/dog/1.xml"):
        write(tmp_path / name)
    write(tmp_path / "dog" / "notes.txt", "x")
    options = {"masks": str(tmp_path / "masks"), "mask_values": "object", "boxes": str(tmp_path)}
    assert prepare(tmp_path, **options)["boxes"].iloc[0] != "[]"
    assert count_skipped() == {
        "boxes without an image": 2,
        "in subfolders": 1,
        "extension .txt": 1,
        "extension .xml": 1,  # among the masks
    }


@pytest.mark.parametrize("place", ["ann", "dog", ".ann"])
def test_masks_and_boxes_deep_below_the_root_are_not_skipped(tmp_path, place):
    save_image(tmp_path / "dog" / "1.jpg")
    masks, boxes = tmp_path / place / "masks", tmp_path / place / "xml"
    save_mask(masks / "dog" / "1.png", OBJECT)
    write(boxes / "dog" / "1.xml")
    write(tmp_path / place / "other" / "notes.txt", "x")
    options = {"masks": str(masks), "mask_values": "object", "boxes": str(boxes)}
    rows = prepare(tmp_path, **options)
    assert (rows["mask"].iloc[0], rows["boxes"].iloc[0] != "[]") == ("dog/1.png", True)
    assert count_skipped() == {"hidden" if place == ".ann" else "in subfolders": 1}


def test_boxes_deep_below_the_masks_are_not_skipped(tmp_path):
    save_image(tmp_path / "images" / "dog" / "1.jpg")
    masks, boxes = tmp_path / "masks", tmp_path / "masks" / "dog" / "xml"
    save_mask(masks / "dog" / "1.png", OBJECT)
    write(boxes / "dog" / "1.xml")
    options = {"masks": str(masks), "mask_values": "object", "boxes": str(boxes)}
    assert prepare(tmp_path, root=str(tmp_path / "images"), **options)["boxes"].iloc[0] != "[]"
    assert count_skipped() == {}


def test_images_below_the_folder_of_masks_are_no_masks(tmp_path):
    save_image(tmp_path / "images" / "1.png")
    save_mask(tmp_path / "1.png", OBJECT)
    options = {"masks": str(tmp_path), "mask_values": "object"}
    assert list(prepare(tmp_path, root=str(tmp_path / "images"), **options)["mask"]) == ["1.png"]
    assert count_skipped() == {}


def test_masks_and_boxes_of_voc_without_an_image_are_counted(tmp_path):
    build_voc(tmp_path)
    save_image(tmp_path / "JPEGImages" / "2007_0.png", (12, 14), 9)  # shares a mask with the .jpg
    save_mask(tmp_path / "SegmentationClass" / "orphan.png", np.full((14, 12), 5), "P")
    write(tmp_path / "SegmentationClass" / "notes.txt", "x")
    write(tmp_path / "Annotations" / "orphan.xml")
    for split in (None, "val"):
        rows = prepare(tmp_path, layout="voc", split=split)
        assert set(rows["mask"]) - {""} == {f"SegmentationClass/2007_{i}.png" for i in (0, 2)}
        assert count_skipped() == {
            "mask without an image": 1,
            "boxes without an image": 1,
            "extension .txt": 1,
            "in folders that the layout does not use": 1,
        } | ({"not in the split": 1} if split else {})


def build_ade20k(root: Path) -> Path:
    for split in ("training", "validation"):
        save_image(root / "images" / split / "ADE_1.jpg")
        save_mask(root / "annotations" / split / "ADE_1.png", np.full((12, 12), 3))
    return root


def test_masks_of_ade20k_without_an_image_are_counted(tmp_path):
    build_ade20k(tmp_path)
    save_mask(tmp_path / "annotations" / "training" / "ADE_2.png", np.full((12, 12), 3))
    save_mask(tmp_path / "annotations" / "other" / "ADE_2.png", np.full((12, 12), 3))
    write(tmp_path / "annotations" / "notes.txt", "x")
    assert len(prepare(tmp_path, layout="ade20k")) == 2
    assert count_skipped() == {"mask without an image": 2, "extension .txt": 1}


def test_ade20k_without_its_masks_is_told_what_the_layout_is(tmp_path):
    build_ade20k(tmp_path)
    (tmp_path / "annotations" / "validation").rename(tmp_path / "annotations" / "val")
    said = "found no folder annotations/validation; expected what is unpacked, .* the layout"
    with pytest.raises(DataError, match=said):
        prepare(tmp_path, layout="ade20k")
    assert len(prepare(tmp_path, layout="ade20k", split="training")) == 1
    (tmp_path / "annotations").rename(tmp_path / "index")  # the full release has none
    with pytest.raises(DataError, match=r"no folder annotations; .* not ADE20K's full release"):
        prepare(tmp_path, layout="ade20k")


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbf2007_0\r\n2007_2\r\n", b"2007_0.jpg\n2007_2.jpg\n", b"2007_0  1\n2007_2  0\n"],
)
def test_lists_with_a_mark_endings_or_columns_name_their_images(tmp_path, content):
    build_voc(tmp_path)
    write(tmp_path / "ImageSets" / "Segmentation" / "val.txt", content + b"2007_1 -1\n")
    rows = prepare(tmp_path, layout="voc", split="val")
    assert list(rows.index) == ["JPEGImages/2007_0.jpg", "JPEGImages/2007_2.jpg"]
    assert count_skipped()["not in the split"] == 1


def test_lists_name_images_with_spaces_dots_and_endings_in_any_case(tmp_path, capsys):
    names = ("my dog.jpg", "my  cat.JPG", "a.V2.jpg", "my.jpg")
    for seed, name in enumerate(names):
        save_image(tmp_path / "JPEGImages" / name, seed=seed)
    lists = tmp_path / "ImageSets" / "Main"
    for number, lines in enumerate(
        (
            "my dog\nmy  cat\na.V2\n",
            "my dog  1\nmy  cat\t0\na.V2 1\nmy -1\n",
            "my dog.JPG\nmy  cat.jpg\na.V2.Jpg 1\n",
        )
    ):
        write(lists / f"{number}.txt", lines)
        rows = prepare(tmp_path, layout="voc", split=str(number))
        assert set(rows.index) == {f"JPEGImages/{name}" for name in names[:3]}
        assert "have no file" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("2007_0\n".encode("utf-16"), "found text that is not UTF-8, expected a list of images"),
        ("2007_0\n".encode("utf-16-le"), "found text that is not UTF-8, expected a list of images"),
        (b"2007_\xe9\n", "found text that is not UTF-8, expected a list of images"),
        (b"2007_0 -1\n\n", "found no image in 1 lines"),
        (
            b"JPEGImages/2007_0.jpg\n",
            "found no file of its 1 images, JPEGImages/2007_0.jpg the first; .* such as 2007_0; correct",
        ),
    ],
)
def test_lists_that_name_no_image_are_errors_with_their_name(tmp_path, content, said):
    build_voc(tmp_path)
    write(tmp_path / "ImageSets" / "Segmentation" / "val.txt", content)
    with pytest.raises(DataError, match=f"Segmentation/val.txt: {said}"):
        prepare(tmp_path, layout="voc", split="val")


def test_hidden_and_system_folders_beside_boxes_are_counted(tmp_path):
    save_image(tmp_path / "images" / "dog" / "1.jpg")
    for name in ("dog/1.xml", ".git/y", "dog/.git/a/x", "dog/.h.xml", "dog/__MACOSX/1.xml"):
        write(tmp_path / "xml" / name)
    options = {"root": str(tmp_path / "images"), "boxes": str(tmp_path / "xml")}
    assert prepare(tmp_path, **options)["boxes"].iloc[0] != "[]"
    assert count_skipped() == {"hidden": 3, "system file": 1}


def test_hidden_folders_and_images_in_the_root_of_voc_are_counted(tmp_path):
    build_voc(tmp_path)
    save_image(tmp_path / "cover.jpg")
    write(tmp_path / "Annotations" / ".h" / "1.xml")
    assert len(prepare(tmp_path, layout="voc")) == 3
    assert count_skipped() == {"in folders that the layout does not use": 2, "hidden": 1}


def test_hidden_folders_and_images_in_the_root_of_ade20k_are_counted(tmp_path):
    build_ade20k(tmp_path)
    save_image(tmp_path / "cover.jpg")
    for folder in ("images", "annotations"):
        write(tmp_path / folder / ".h" / "1.xml")
    assert len(prepare(tmp_path, layout="ade20k")) == 2
    assert count_skipped() == {"in folders that the layout does not use": 1, "hidden": 2}


@pytest.mark.parametrize("kind", ["masks", "boxes"])
def test_masks_or_boxes_of_which_no_image_has_any_are_refused_with_both_names(tmp_path, kind):
    """As Cityscapes names them; known before any training."""
    save_image(tmp_path / "images" / "ulm" / "ulm_0_leftImg8bit.png")
    options = {"mask_values": "classes"} if kind == "masks" else {}
    options |= {"root": str(tmp_path / "images"), kind: str(tmp_path / kind)}
    (tmp_path / kind / "ulm").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"/{kind}: found no .* of the 1 images in 0 files; expec"):
        prepare(tmp_path, **options)
    save_mask(tmp_path / "masks" / "ulm" / "ulm_0_gtFine_labelIds.png", OBJECT)
    write(tmp_path / "boxes" / "ulm" / "ulm_0_polygons.xml")
    said = r"in 1 files, such as ulm/ulm_0_(gtFine|polygons).*, such as ulm/ulm_0_leftImg8bit; corr"
    with pytest.raises(DataError, match=said):
        prepare(tmp_path, **options)


def test_names_with_accents_are_equal_however_they_are_written(tmp_path):
    composed, apart = "caf\u00e9", "cafe\u0301"
    save_image(tmp_path / "images" / f"{composed}.png")
    save_mask(tmp_path / "masks" / f"{apart}.png", OBJECT)
    root, masks = str(tmp_path / "images"), str(tmp_path / "masks")
    frame = prepare(tmp_path, root=root, masks=masks, mask_values="object")
    assert frame["mask"].tolist() == [f"{apart}.png"]


def test_a_photograph_on_its_side_is_told_from_one_of_another_size(tmp_path):
    for name, size in (("1", (12, 20)), ("2", (20, 12)), ("3", (12, 13))):
        save_image(tmp_path / "images" / f"{name}.png", size)
        save_mask(tmp_path / "masks" / f"{name}.png", np.resize(OBJECT, (20, 12)))
        shape = "<annotation><size><width>12</width><height>20</height></size>"
        write(tmp_path / "xml" / f"{name}.xml", XML.replace("<annotation>", shape))
    places = {"boxes": str(tmp_path / "xml")}, {"masks": str(tmp_path / "masks")}
    for kind, place in zip(("boxes", "mask"), places, strict=True):
        values = {"mask_values": "object"} if kind == "mask" else {}
        prepare(tmp_path, root=str(tmp_path / "images"), **place, **values)
        right, turned, other = pd.read_parquet(paths.transfer_file("x"))["problem"]
        assert right == ""
        assert turned.startswith(f"{kind}: of the image on its side; expected its pixels as stored")
        assert other.startswith(f"{kind}: of another size than the image")


def test_a_split_names_the_list_of_one_kind_by_its_folder(tmp_path):
    root = build_voc(tmp_path)
    (root / "ImageSets/Main/val.txt").write_text("2007_1\n")
    assert len(prepare(tmp_path, layout="voc", split="val")) == 2
    assert len(prepare(tmp_path, layout="voc", split="Segmentation/val")) == 2
    assert list(prepare(tmp_path, layout="voc", split="Main/val").index) == [
        "JPEGImages/2007_1.jpg"
    ]
