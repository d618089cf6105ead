"""Errors planted in real files are each found and named; changes that mean nothing change
nothing.
"""

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from densecl.artifacts import ValidationResult
from densecl.config.params import CONTROL_SET, TRAIN_SET, DatasetParams, ValidateParams
from densecl.datasets.imagenet import _find_timm_file, get_official_counts, read_lines
from densecl.datasets.manifests.listing import check_root, list_classes
from densecl.datasets.manifests.scan import scan_dataset
from densecl.datasets.storage.manifest import (
    check_unchanged,
    read_manifest,
    select_usable,
    write_manifest,
)
from densecl.datasets.synthetic.photographs import PHOTO, render_photograph
from densecl.datasets.validation.expectations import check_manifests
from densecl.datasets.validation.page import write_validation_page
from densecl.errors import DataError
from tests.conftest import WNIDS, draw_set, skip_nothing

A, B, C = WNIDS
DEFAULT = ValidateParams()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Photograph-like train and val, the train files named as ImageNet's."""
    for folder, images, seed in (("train", 5, 0), ("val", 3, 1)):
        for label, wnid in enumerate(WNIDS):
            (tmp_path / folder / wnid).mkdir(parents=True)
            for number in range(images):
                picture = render_photograph(
                    label, PHOTO, 64, np.random.default_rng([seed, label, number])
                )[0]
                name = (
                    f"{wnid}_{number}.JPEG"
                    if folder == "train"
                    else f"val_{3 * label + number:08d}.JPEG"
                )
                picture.save(tmp_path / folder / wnid / name, quality=92)
    return tmp_path


def judged(
    place: Path, values: ValidateParams = DEFAULT, declared: dict[str, DatasetParams] | None = None
) -> dict[str, ValidationResult]:
    manifests = {}
    for name, folder in ((TRAIN_SET, "train"), (CONTROL_SET, "val")):
        manifests[name] = scan_dataset(
            name, place / folder, "wnid", list_classes(place / "train"), 1
        )
    verdicts = check_manifests(manifests, values, declared)
    roots = {TRAIN_SET: place / "train", CONTROL_SET: place / "val"}
    write_validation_page(
        verdicts, manifests, skip_nothing(manifests), place / "validation.html", roots
    )
    return verdicts


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is_planted(place: Path) -> None:
    for verdict in judged(place).values():
        assert (verdict.passed, verdict.failures, verdict.warnings, verdict.absent) == (
            True,
            (),
            (),
            (),
        )
    assert "<img" not in (place / "validation.html").read_text()


@pytest.mark.slow
def test_train_folders_that_are_swapped(place: Path) -> None:
    for one, two in ((A, "held"), (B, A), ("held", B)):
        (place / "train" / one).rename(place / "train" / two)
    failures = judged(place)[TRAIN_SET].failures
    assert len(failures) == 10
    assert (
        f"{A}/{B}_0.JPEG: found in class {A}, but its file name says {B}; mislabelled folder or file"
        in failures
    )


@pytest.mark.slow
def test_a_folder_filled_with_another_class(place: Path) -> None:
    for number, file in enumerate(sorted((place / "val" / C).iterdir())):
        shutil.copy(sorted((place / "val" / A).iterdir())[number], file)
    said = "images have the same content as images of class"
    assert judged(place)[CONTROL_SET].failures == (
        f"class {A}: 3 of its 3 {said} {C}; one of the two folders is mislabelled",
        f"class {C}: 3 of its 3 {said} {A}; one of the two folders is mislabelled",
    )


def test_leaked_copies_exact_reencoded_and_mirrored(place: Path) -> None:
    train = [place / "train" / A / f"{A}_{number}.JPEG" for number in range(3)]
    shutil.copy(train[0], place / "val" / A / "leaked.JPEG")
    Image.open(train[1]).save(place / "val" / A / "coded.webp", quality=85)
    ImageOps.mirror(Image.open(train[2])).save(place / "val" / B / "turned.jpg", quality=90)
    verdict = judged(place)[CONTROL_SET]
    assert verdict.failures == (
        f"{A}/leaked.JPEG: same content as {A}/{A}_0.JPEG of the train set, which no evaluation image may share; "
        "remove one of them",
    )
    coded, turned = verdict.warnings
    assert re.fullmatch(
        rf"{A}/coded.webp: looks like {A}/{A}_1.JPEG of the train set \(\d+ of 256 bits of its hash differ\); compare both",
        coded,
    )
    assert f"{B}/turned.jpg: looks like {A}/{A}_2.JPEG of the train set mirrored" in turned
    assert [evidence.images for evidence in verdict.evidence] == [
        (f"{CONTROL_SET}/{A}/leaked.JPEG", f"{TRAIN_SET}/{A}/{A}_0.JPEG"),
        (f"{CONTROL_SET}/{A}/coded.webp", f"{TRAIN_SET}/{A}/{A}_1.JPEG"),
        (f"{CONTROL_SET}/{B}/turned.jpg", f"{TRAIN_SET}/{A}/{A}_2.JPEG"),
    ]
    page = (place / "validation.html").read_text()
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[A-Za-z0-9+/=]+" alt=', page)) == 6
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_a_truncated_file_and_black_images(place: Path) -> None:
    file = place / "val" / B / "val_00000004.JPEG"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    Image.new("L", (64, 64)).save(place / "val" / B / "black.png")
    assert set(judged(place)[CONTROL_SET].failures) == {
        f"{B}/val_00000004.JPEG: truncated",
        f"{B}/black.png: blank: every pixel is the same",
    }
    verdict = judged(place, ValidateParams(bad_images="exclude"))[CONTROL_SET]
    assert verdict.passed
    assert set(verdict.excluded) == {
        f"{CONTROL_SET}/{B}/val_00000004.JPEG",
        f"{CONTROL_SET}/{B}/black.png",
    }
    assert (place / "validation.html").read_text().count(
        "<img"
    ) == 1  # the black one can be looked at


@pytest.mark.slow
def test_missing_and_foreign_classes(place: Path) -> None:
    shutil.rmtree(place / "val" / B)
    verdict = judged(place)[CONTROL_SET]
    assert verdict.failures == (
        f"class {B}: missing: found no image of it, expected every class of {TRAIN_SET}",
    )
    assert verdict.absent == (B,)
    root = DatasetParams(root="val", tracked_by="val", classes=2, images=7)
    assert judged(place, declared={CONTROL_SET: root})[CONTROL_SET].failures == (
        f"found 6 images, expected 7 as declared in params; complete the dataset, or say in datasets.{CONTROL_SET}.images how many it has",
    )
    shutil.rmtree(place / "train" / C)
    with pytest.raises(
        DataError, match=f"{C}: found folder '{C}', expected one of the 2 classes of the train set"
    ):
        judged(place)


def test_zero_classes_and_one(place: Path) -> None:
    (place / "none").mkdir()
    with pytest.raises(DataError, match="none: found no class folders and 0 image files"):
        check_root(place / "none", "wnid")
    for folder in ("train", "val"):
        for wnid in (B, C):
            shutil.rmtree(place / folder / wnid)
    assert all(verdict.passed and verdict.classes == 1 for verdict in judged(place).values())


def test_a_file_that_changed_after_prepare_and_a_manifest_edited_by_hand(
    place: Path, tmp_path: Path
) -> None:
    frame = select_usable(scan_dataset(CONTROL_SET, place / "val", "wnid", WNIDS, 1))
    check_unchanged(frame, place / "val")
    file = place / "val" / frame["path"][4]
    content = file.read_bytes()
    file.write_bytes(content + b"\0")
    with pytest.raises(
        DataError,
        match=rf"{file.name}: found {len(content) + 1} bytes, expected {len(content)} bytes",
    ):
        check_unchanged(frame, place / "val")
    file.unlink()
    with pytest.raises(DataError, match=rf"{file.name}: found no such file or directory, expected"):
        check_unchanged(frame, place / "val")
    for path in ("../../secret.jpg", "/etc/passwd.jpg", f"{A}/../../x.jpg"):
        frame.loc[0, "path"] = path
        write_manifest(frame, tmp_path / "edited.parquet")
        with pytest.raises(
            DataError, match=r"column path: found .*, expected a path below the dataset's root"
        ):
            read_manifest(tmp_path / "edited.parquet")
    frame.loc[0, "path"] = f"{C}/val_00000000.JPEG"
    train = scan_dataset(TRAIN_SET, place / "train", "wnid", WNIDS, 1)
    failures = check_manifests({TRAIN_SET: train, CONTROL_SET: frame}, ValidateParams())[
        CONTROL_SET
    ].failures
    assert any(
        "expected imagenet/n10000003/val_00000000.JPEG; run the stage prepare" in line
        for line in failures
    )


def frame_of(dataset: str, labels: list[int], classes: list[str], names: list[str]) -> pd.DataFrame:
    """A manifest as `scan` would give, of files that no one draws."""
    rng = np.random.default_rng(list(dataset.encode()))
    frame = pd.DataFrame(
        {"path": [f"{classes[label]}/{name}" for label, name in zip(labels, names, strict=True)]}
    )
    frame.insert(0, "image_id", f"{dataset}/" + frame["path"])
    frame["label"], frame["wnid"] = labels, [classes[label] for label in labels]
    frame[["width", "height"]] = np.full((len(frame), 2), 64, np.int32)
    frame["bytes"], frame["sha256"] = 1000, [rng.bytes(32).hex() for _ in labels]
    frame["problem"], frame["dhash"] = "", [rng.bytes(32).hex() for _ in labels]
    frame[["brightness", "contrast"]] = np.full((len(frame), 2), 0.5, np.float32)
    return frame.astype(dict.fromkeys(("wnid", "sha256", "problem", "dhash"), "str"))


def test_published_sets_are_held_to_their_counts_and_classes() -> None:
    classes = sorted(read_lines("imagenet_synsets.txt"))
    assert {
        name: (found[0], len(found[1]))
        for name in (
            "imagenet-train",
            "imagenet",
            "imagenet-a",
            "imagenet-r",
            "imagenet-v2",
            "stylized",
            "sketch",
        )
        if (found := get_official_counts(name, classes))
    } == {
        "imagenet-train": (1281167, 1000),
        "imagenet": (50000, 1000),
        "imagenet-a": (7500, 200),
        "imagenet-r": (30000, 200),
        "imagenet-v2": (10000, 1000),
        "stylized": (50000, 1000),
        "sketch": (50889, 1000),
    }
    assert (
        get_official_counts("imagenet-a", classes[:-1])
        is get_official_counts("other", classes)
        is None
    )
    train = frame_of(TRAIN_SET, list(range(1000)), classes, ["a.JPEG"] * 1000)
    adversarial = [classes.index(wnid) for wnid in sorted(read_lines("imagenet_a_synsets.txt"))]
    foreign = next(label for label in range(1000) if label not in adversarial)
    labels = [foreign, *adversarial[1:]] * 37
    found = frame_of(
        "imagenet-a", labels, classes, [f"{number}.jpg" for number in range(len(labels))]
    )
    verdicts = check_manifests({TRAIN_SET: train, "imagenet-a": found}, ValidateParams())
    assert set(verdicts["imagenet-a"].failures) == {
        f"class {classes[adversarial[0]]}: missing: found no image of it, expected every class of the published dataset",
        f"class {classes[foreign]}: found images of it, which the published dataset does not have",
        "found 7400 images, expected 7500 as published; complete the dataset, or say in datasets.imagenet-a.images how many it has",
    }
    assert (
        verdicts[TRAIN_SET]
        .failures[0]
        .startswith("found 1000 images, expected 1281167 as published")
    )


@pytest.mark.slow
def test_validation_folders_that_are_swapped_are_doubted_by_real() -> None:
    """ReaL's labels come with timm; the first of each image's stands here for the folder."""
    import json

    classes = sorted(read_lines("imagenet_synsets.txt"))
    seen = json.loads(_find_timm_file("imagenet_real_labels.json").read_text())
    rated = [(number, of[0]) for number, of in enumerate(seen, 1) if of][::4]
    labels, names = (
        [label for _, label in rated],
        [f"ILSVRC2012_val_{number:08d}.JPEG" for number, _ in rated],
    )
    train = frame_of(TRAIN_SET, list(range(1000)), classes, ["a.JPEG"] * 1000)
    declared = {
        name: DatasetParams(root=name, tracked_by=name, images=count)
        for name, count in ((TRAIN_SET, 1000), (CONTROL_SET, len(names)))
    }
    assert 10_000 < len(names) < 12_500
    for swapped in (False, True):
        exchange = {207: 950, 950: 207} if swapped else {}  # golden retriever, orange
        frame = frame_of(
            CONTROL_SET, [exchange.get(label, label) for label in labels], classes, names
        )
        verdict = check_manifests(
            {TRAIN_SET: train, CONTROL_SET: frame}, ValidateParams(), declared
        )[CONTROL_SET]
        assert verdict.passed
        assert [line.partition(":")[0] for line in verdict.warnings] == [
            f"class {classes[label]}" for label in sorted(exchange)
        ]
    assert "ReaL's raters see this class in 0 of its" in verdict.warnings[0]


def rows_of(frame: pd.DataFrame, without: str = "") -> pd.DataFrame:
    return frame[frame["wnid"] != without].reset_index(drop=True)


def test_what_means_nothing_changes_no_row(tmp_path: Path) -> None:
    root = draw_set(tmp_path / "set", 3)
    before = scan_dataset("s", root, "wnid", WNIDS, 1)
    for stray in (
        "README.txt",
        ".DS_Store",
        "notes.md",
        f"{A}/Thumbs.db",
        f"{B}/.hidden.jpg",
        f"{C}/list.txt",
    ):
        (root / stray).write_bytes(b"stray")
    (root / A / "below").mkdir()
    shutil.copy(next((root / B).glob("*.JPEG")), root / A / "below/image.jpg")
    pd.testing.assert_frame_equal(scan_dataset("s", root, "wnid", WNIDS, 1), before)
    (root / "loose.jpg").write_bytes(b"an image of no class")
    pd.testing.assert_frame_equal(scan_dataset("s", root, "wnid", WNIDS, 1), before)
    shutil.rmtree(root / B)
    pd.testing.assert_frame_equal(scan_dataset("s", root, "wnid", WNIDS, 1), rows_of(before, B))
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(buffer, "PNG")
    (root / A / "new.png").write_bytes(buffer.getvalue())
    after = scan_dataset("s", root, "wnid", WNIDS, 1)
    pd.testing.assert_frame_equal(
        rows_of(after, A), rows_of(before, B)[lambda f: f["wnid"] != A].reset_index(drop=True)
    )


def test_zero_padding_changes_paths_only(tmp_path: Path) -> None:
    classes = [f"n{number:08d}" for number in range(12)]
    root = draw_set(tmp_path / "v2", 2, folders=tuple(str(label) for label in range(12)))
    plain = scan_dataset("v2", root, "index", classes, 1)
    for folder in list(root.iterdir()):
        folder.rename(root / f"{int(folder.name):04d}")
    padded = scan_dataset("v2", root, "index", classes, 1)
    by_content = [
        frame.set_index("sha256").sort_index()[["label", "wnid", "dhash"]]
        for frame in (plain, padded)
    ]
    pd.testing.assert_frame_equal(*by_content)
    assert [int(path.partition("/")[0]) for path in padded["path"]] == padded["label"].tolist()
