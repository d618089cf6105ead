"""Entries of `transfer`: images with classes, masks and boxes, in three layouts."""

import json
import re
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError

from densecl import paths
from densecl.config.probe_params import TransferParams
from densecl.datasets.manifests.transfer_masks import INDICES, inspect_mask
from densecl.datasets.storage.transfer import load_transfer, read_skipped
from densecl.errors import DataError
from steps import plan, prepare_transfer
from tests.datasets.transfer_entries import XML, build_voc, prepare, save_image, save_mask


@pytest.fixture(autouse=True)
def _in_project(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("project"))


def test_voc_by_its_lists_with_boxes_from_zero_and_past_the_last(tmp_path, capsys):
    build_voc(tmp_path)
    rows = prepare(tmp_path, layout="voc", split="val")
    assert list(rows.index) == ["JPEGImages/2007_0.jpg", "JPEGImages/2007_2.jpg"]
    assert list(rows["image_id"]) == [f"x/{path}" for path in rows.index]
    assert list(rows["mask"]) == ["SegmentationClass/2007_0.png", "SegmentationClass/2007_2.png"]
    assert json.loads(rows["boxes"].iloc[0]) == [["dog", 0, 1, 8, 6], ["cat", 10, 10, 12, 12]]
    assert (rows["boxes"].iloc[1], *rows[["width", "height"]].iloc[0]) == ("[]", 12, 14)
    assert read_skipped(paths.transfer_file("x")) == {
        "not in the split": 1,
        "in folders that the layout does not use": 1,
    }
    assert "2 images in" in capsys.readouterr().out
    rows = prepare(tmp_path, layout="voc", split="dog")  # of ImageSets/Main; one has no file
    assert list(rows.index) == ["JPEGImages/2007_1.jpg"]
    assert "1 of the 2 images of the split have no file" in capsys.readouterr().out
    assert len(prepare(tmp_path, layout="voc")) == 3
    with pytest.raises(DataError, match=r"found no nosuch.txt in ImageSets/Segmentation or"):
        prepare(tmp_path, layout="voc", split="nosuch")
    with pytest.raises(DataError, match="found no folder JPEGImages; expected what is unpacked"):
        prepare(tmp_path.parent, layout="voc")


def test_voc_is_read_from_its_archive_in_place(tmp_path):
    build_voc(tmp_path / "VOC2012")
    with tarfile.open(tmp_path / "voc.tar", "w") as archive:
        archive.add(tmp_path / "VOC2012", "VOC2012")
    packed = prepare(tmp_path, root=str(tmp_path / "voc.tar"), layout="voc", split="val")
    unpacked = prepare(tmp_path, root=str(tmp_path / "VOC2012"), layout="voc", split="val")
    pd.testing.assert_frame_equal(packed, unpacked)


def test_ade20k_by_split(tmp_path):
    for split, number in (("training", 2), ("validation", 1)):
        for i in range(number):
            save_image(tmp_path / "images" / split / f"ADE_{i}.jpg", seed=i)
            save_mask(tmp_path / "annotations" / split / f"ADE_{i}.png", np.full((12, 12), i))
    (tmp_path / "sceneCategories.txt").write_text("ADE_0 kitchen\n")
    assert len(prepare(tmp_path, layout="ade20k")) == 3
    rows = prepare(tmp_path, layout="ade20k", split="validation")
    assert list(rows["mask"]) == ["annotations/validation/ADE_0.png"]
    skipped = {"extension .txt": 1, "not in the split": 2}
    assert read_skipped(paths.transfer_file("x")) == skipped
    with pytest.raises(DataError, match="found the folders training, validation, expected test"):
        prepare(tmp_path, layout="ade20k", split="test")


def test_folders_with_classes_masks_and_boxes_beside_or_below(tmp_path):
    save_image(tmp_path / "a" / "1.jpg")
    save_image(tmp_path / "a" / "2.png", seed=1)
    save_image(tmp_path / "loose.jpg", seed=2)
    (tmp_path / "notes.txt").write_text("x")
    ramp = np.arange(144).reshape(12, 12)  # antialiased
    save_mask(tmp_path / "masks" / "a" / "1.png", ramp)
    save_mask(tmp_path / "masks" / "a" / "3.png", ramp)
    (tmp_path / "xml" / "a").mkdir(parents=True)
    (tmp_path / "xml" / "a" / "2.xml").write_text(XML)
    masks, boxes = str(tmp_path / "masks"), str(tmp_path / "xml")
    rows = prepare(tmp_path, masks=masks, mask_values="object", boxes=boxes)
    assert dict(rows["class"]) == {"a/1.jpg": "a", "a/2.png": "a", "loose.jpg": ""}
    assert list(rows["mask"]) == ["a/1.png", "", ""]
    assert [len(json.loads(boxes)) for boxes in rows["boxes"]] == [0, 2, 0]
    assert read_skipped(paths.transfer_file("x")) == {
        "extension .txt": 1,
        "mask without an image": 1,
    }


@pytest.mark.parametrize(
    ("mode", "values", "mask_values", "said"),
    [
        ("L", np.ones((12, 12)), "object", "found values below 128 only, so no object"),
        ("P", np.ones((12, 12)), "object", "found a PNG of mode P, expected an object in grey"),
        ("L", np.ones((12, 12, 3)), "classes", "found a PNG of mode RGB, expected indices"),
        ("L", np.ones((12, 13)), "classes", "mask: of another size than the image"),
    ],
)
def test_masks_that_may_mean_something_else_are_problems(tmp_path, mode, values, mask_values, said):
    save_image(tmp_path / "images" / "1.jpg")
    save_mask(tmp_path / "masks" / "1.png", values, mode)
    options = {"masks": str(tmp_path / "masks"), "mask_values": mask_values}
    with pytest.raises(DataError, match=said):
        prepare(tmp_path, root=str(tmp_path / "images"), **options)
    save_image(tmp_path / "images" / "2.jpg", seed=1)  # has no mask, and is kept
    assert list(prepare(tmp_path, root=str(tmp_path / "images"), **options).index) == ["2.jpg"]


@pytest.mark.parametrize(
    ("layout", "value", "said"),
    [
        ("voc", 21, "found the value 21, expected 0 .background., 1 to 20 .classes. or 255"),
        ("voc", 254, "found the value 254, expected"),
        ("ade20k", 151, "found the value 151, expected 0 .ignored. or 1 to 150 .classes."),
        ("ade20k", 255, "found the value 255, expected"),
    ],
)
def test_masks_of_values_that_the_layout_has_not_are_problems(tmp_path, layout, value, said):
    images, masks = {
        "voc": ("JPEGImages", "SegmentationClass"),
        "ade20k": ("images/training", "annotations/training"),
    }[layout]
    allowed = [*range(21), 255] if layout == "voc" else range(151)
    for name, mode, values in (("1", "L", allowed), ("2", "L", [3, value]), ("3", "P", [3, value])):
        save_image(tmp_path / images / f"{name}.jpg")
        save_mask(tmp_path / masks / f"{name}.png", np.resize(values, (12, 12)), mode)
    usable = [f"{images}/1.jpg", f"{images}/3.jpg"]  # a palette may have classes of one's own
    assert list(prepare(tmp_path, layout=layout).index) == usable[: 1 + (layout == "voc")]
    problems = pd.read_parquet(paths.transfer_file("x"))["problem"]
    assert problems.iloc[0] == ""
    assert re.match(f"mask: {said}", problems.iloc[1])


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_no_index(tmp_path, bits):
    width = 8 // bits * 3
    header = struct.pack(">IIBBBBB", width, 2, bits, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\x11" * 3) * 2)
    chunks = ((b"IHDR", header), (b"IDAT", pixels), (b"IEND", b""))
    (tmp_path / "1.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
    )
    problem = inspect_mask(tmp_path / "1.png", INDICES["voc"]).problem
    assert problem.startswith(f"found a grey PNG of {bits} bits, expected indices of classes in 8")
    Image.new("P", (width, 2), 1).save(tmp_path / "2.png", bits=bits)  # indices as they are
    info = inspect_mask(tmp_path / "2.png", INDICES["voc"])
    assert (info.problem, info.indices) == ("", {1})


@pytest.mark.parametrize(
    ("mode", "is_colour"),
    [("1", False), ("LA", False), ("I;16", False), ("RGB", True), ("RGBA", True)],
)
def test_only_colours_are_called_colours(tmp_path, mode, is_colour):
    Image.new(mode, (4, 4)).save(tmp_path / "1.png")
    problem = inspect_mask(tmp_path / "1.png", INDICES["voc"]).problem
    assert problem.startswith(f"found a PNG of mode {mode}, expected indices")
    assert ("colour" in problem) == is_colour


def test_masks_of_objects_are_no_masks_of_classes(tmp_path):
    values = np.zeros((12, 12))
    for name in ("1", "2"):
        save_image(tmp_path / "images" / f"{name}.jpg")
        save_mask(tmp_path / "masks" / f"{name}.png", values)
        values[3:9, 3:9] = 255
    root, masks = str(tmp_path / "images"), str(tmp_path / "masks")
    with pytest.raises(DataError, match=r"found only 0 and 255 in 2 masks, .* mask_values: object"):
        prepare(tmp_path, root=root, masks=masks, mask_values="classes")
    assert len(prepare(tmp_path, root=root, masks=masks, mask_values="object")) == 2
    values[3, 3] = 1
    save_mask(tmp_path / "masks" / "1.png", values)
    assert len(prepare(tmp_path, root=root, masks=masks, mask_values="classes")) == 2


@pytest.mark.parametrize(
    "content",
    [
        "<annotation><object>",
        XML.replace("<xmin>1<", "<xmin>one<"),
        XML.replace("<xmin>1<", "<xmin>9<"),
        XML.replace("bndbox", "polygon"),
        XML.replace(">8.0<", ">inf<"),
        XML.replace(">8.0<", ">nan<"),
        XML.replace("<filename>", "<size><width>500</width><height>14</height></size><filename>"),
        '<!DOCTYPE a [<!ENTITY b "c">]>' + XML,
        '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY b "c">]>' + XML,
        '<?xml version="1.0" encoding="unknown"?>' + XML,
        XML.replace("<annotation>", '<annotation xmlns="http://x">'),
        XML.replace("<object><name>cat", '<object xmlns="http://x"><name>cat'),
        XML.replace("annotation>", "annotations>"),
        "<html><body>404 Not Found</body></html>",
        XML + " " * 2**20,
        "",
    ],
)
def test_boxes_that_cannot_be_read_are_a_problem_of_their_image(tmp_path, content):
    build_voc(tmp_path)
    encoding = "utf-16" if "utf-16" in content else "utf-8"
    (tmp_path / "Annotations" / "2007_0.xml").write_text(content, encoding)
    assert list(prepare(tmp_path, layout="voc", split="val").index) == ["JPEGImages/2007_2.jpg"]
    rows = pd.read_parquet(paths.transfer_file("x"))
    assert rows["problem"].iloc[0].startswith("boxes: ")


@pytest.mark.parametrize(
    "content",
    [
        "<!DOCTYPE annotation>" + XML,
        '<!DOCTYPE annotation SYSTEM "voc.dtd">' + XML,
        XML.replace("dog", "<![CDATA[dog]]>"),
        XML.replace("<filename>", "<size><width>12</width><height>14</height></size><filename>"),
        XML.replace("<filename>", "<size><width>0</width><height>0</height></size><filename>"),
        XML.replace("<filename>", "<size><width/></size><!-- unknown --><filename>"),
        '<?xml version="1.0" encoding="utf-16"?>' + XML,
    ],
)
def test_boxes_in_any_form_of_xml_without_entities_are_read(tmp_path, content):
    build_voc(tmp_path)
    encoding = "utf-16" if "utf-16" in content else "utf-8"
    (tmp_path / "Annotations" / "2007_0.xml").write_text(content, encoding)
    boxes = prepare(tmp_path, layout="voc", split="val")["boxes"].iloc[0]
    assert json.loads(boxes) == [["dog", 0, 1, 8, 6], ["cat", 10, 10, 12, 12]]


def test_a_damaged_image_keeps_the_boxes_of_its_row(tmp_path):
    build_voc(tmp_path)
    size = "<size><width>12</width><height>14</height></size></annotation>"
    (tmp_path / "Annotations" / "2007_0.xml").write_text(XML.replace("</annotation>", size))
    (tmp_path / "JPEGImages" / "2007_0.jpg").write_bytes(b"damaged")
    prepare(tmp_path, layout="voc")
    row = pd.read_parquet(paths.transfer_file("x")).iloc[0]
    assert (row["problem"], len(json.loads(row["boxes"]))) == ("not an image", 2)


def test_two_reasons_to_refuse_boxes_are_two_problems(tmp_path):
    build_voc(tmp_path)
    for name, content in (("0", '<!DOCTYPE a [<!ENTITY b "c">]>' + XML), ("1", XML + " " * 2**20)):
        (tmp_path / "Annotations" / f"2007_{name}.xml").write_text(content)
    prepare(tmp_path, layout="voc")
    assert list(pd.read_parquet(paths.transfer_file("x"))["problem"]) == [
        "boxes: not an annotation of VOC (found an entity, expected none)",
        "boxes: not an annotation of VOC (found more than 1 MB)",
        "",
    ]


def test_images_that_are_converted_are_not_told_as_problems(tmp_path, capsys):
    for name, mode in (("1", "RGB"), ("2", "CMYK")):
        save_image(tmp_path / f"{name}.png")
        with Image.open(tmp_path / f"{name}.png") as image:
            image.convert(mode).save(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.png").unlink()
    assert len(prepare(tmp_path)) == 2
    told = capsys.readouterr().out
    assert "problem" not in told
    assert "used after a conversion 1 (CMYK: converted to RGB as Pillow does: 1)" in told
    (tmp_path / "3.jpg").write_bytes(b"damaged")
    assert len(prepare(tmp_path)) == 2
    assert (
        "with a problem 1 (not an image: 1); used after a conversion 1" in capsys.readouterr().out
    )


def test_what_changed_or_is_missing_is_an_error_that_says_what_to_do(tmp_path):
    save_image(tmp_path / "1.png")
    params = {"root": str(tmp_path), "tracked_by": str(tmp_path)}
    prepare(tmp_path)
    save_image(tmp_path / "1.png", (13, 12))
    with pytest.raises(DataError, match="it changed after its manifest was written"):
        load_transfer("x", TransferParams(**params), paths.transfer_file("x"))
    with pytest.raises(DataError, match="`dvc repro prepare-transfer@y` lists its images"):
        load_transfer("y", TransferParams(**params), paths.transfer_file("y"))
    shutil.rmtree(tmp_path)
    with pytest.raises(DataError, match=r"no such folder or archive"):
        prepare(tmp_path)
    with pytest.raises(DataError, match=r"transfer.x: .*no such folder or archive"):
        prepare(tmp_path, optional=True)
    assert pd.read_parquet(paths.transfer_file("x")).empty


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"masks": "r/", "mask_values": "object"}, "found r/ as root and as masks, expected two"),
        ({"layout": "voc", "masks": "m"}, "found layout voc with masks; expected none"),
        ({"masks": "m"}, "found masks m with mask_values None; expected both or neither"),
        ({"mask_values": "object"}, "found masks None with mask_values object"),
        ({"split": "val"}, "found layout folders with split val; expected no split"),
    ],
)
def test_params_that_contradict_each_other(values, said):
    with pytest.raises(ValidationError, match=said):
        TransferParams.model_validate({"root": "r", "tracked_by": "r"} | values)


def test_plan_checks_roots_and_leaves_the_folder_that_evaluate_reads(tmp_path):
    values = yaml.safe_load((Path(__file__).parents[1] / "small.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(values))
    plan.main()
    assert json.loads(paths.TRANSFER_INDEX.read_text()) == {"names": []}
    save_image(tmp_path / "1.png")
    drawn = "data/rendered/imagenet/val"
    values["transfer"] = {
        "x": {"root": str(tmp_path), "tracked_by": str(tmp_path)},
        "drawn": {"root": drawn, "tracked_by": drawn},  # later
    }
    Path("params.yaml").write_text(yaml.safe_dump(values))
    plan.main()
    prepare_transfer.main("x")
    plan.main()
    assert json.loads(paths.TRANSFER_INDEX.read_text()) == {"names": ["drawn", "x"]}
    assert paths.transfer_file("x").exists()
    values["transfer"] = {"y": {"root": "nosuch", "tracked_by": "nosuch"}}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(DataError.__base__, match=r"transfer.y: nosuch: no such folder or archive"):
        plan.main()
    values["evaluate"]["require"] = "present"
    Path("params.yaml").write_text(yaml.safe_dump(values))
    plan.main()
    assert Path("nosuch").is_dir()
    assert not paths.transfer_file("x").exists()
