"""The gate: what it stops, what it only names, and that one set's verdict does not hang on
another's; and its page.
"""

import hashlib
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from playwright.sync_api import Browser

from densecl.artifacts import Evidence, SkippedFiles, ValidationResult, read_json, write_json
from densecl.config.params import TRAIN_SET, ValidateParams
from densecl.datasets.manifests.listing import list_classes
from densecl.datasets.manifests.scan import scan_dataset
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.manifest import read_manifest, write_manifest
from densecl.datasets.validation import gx_runner
from densecl.datasets.validation.expectations import check_manifests
from densecl.datasets.validation.page import write_validation_page
from densecl.errors import DataError
from steps.validate import describe_verdict
from tests.conftest import draw_set, skip_nothing
from tests.page_checks import faults

SUITE = os.environ.get("DENSECL_SUITE")
WNIDS = [f"n{number:08d}" for number in range(12)]
Manifests = dict[str, pd.DataFrame]


def rows(dataset: str, count: int = 3, wnids: list[str] = WNIDS) -> pd.DataFrame:
    paths = [f"{wnid}/{number}.JPEG" for wnid in wnids for number in range(count)]
    frame = pd.DataFrame({"image_id": [f"{dataset}/{path}" for path in paths], "path": paths})
    frame["label"] = np.repeat([WNIDS.index(wnid) for wnid in wnids], count)
    frame["wnid"] = np.repeat(wnids, count)
    frame[["width", "height"]] = np.full((len(frame), 2), 64, np.int32)
    frame["bytes"] = 1000
    frame["sha256"] = [hashlib.sha256(f"{dataset}/{path}".encode()).hexdigest() for path in paths]
    frame["problem"] = ""
    frame["dhash"] = [digest[::-1] for digest in frame["sha256"]]
    frame[["brightness", "contrast"]] = np.full((len(frame), 2), 0.5, np.float32)
    text = dict.fromkeys(("wnid", "sha256", "problem", "dhash"), "str")
    return frame.astype(text | {"label": "int64"})


@pytest.fixture
def manifests() -> Manifests:
    return {
        TRAIN_SET: rows(TRAIN_SET),
        "imagenet": rows("imagenet"),
        "imagenet-r": rows("imagenet-r", 2, WNIDS[3:9]),
    }


def only(verdicts: dict[str, ValidationResult], name: str) -> ValidationResult:
    assert [other for other in verdicts if not verdicts[other].passed] == [name]
    return verdicts[name]


@pytest.mark.slow
def test_clean_sets_pass(manifests: Manifests, capfd: pytest.CaptureFixture[str]) -> None:
    verdicts = check_manifests(manifests, ValidateParams())
    assert list(verdicts) == list(manifests)
    assert verdicts["imagenet-r"] == ValidationResult(
        dataset="imagenet-r",
        passed=True,
        images=12,
        classes=6,
        absent=(*WNIDS[:3], *WNIDS[9:]),
        excluded=(),
        failures=(),
        warnings=(),
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_each_dataset_has_a_line_also_where_all_is_well(manifests: Manifests) -> None:
    skipped = SkippedFiles(dataset="imagenet", skipped={"hidden": 2})
    verdict = check_manifests(manifests, ValidateParams())["imagenet"]
    assert describe_verdict(verdict, skipped) == (
        "imagenet: 36 usable images of 12 classes; excluded 0; skipped 2 (hidden: 2); 0 warnings"
    )
    manifests["imagenet"].loc[4, "sha256"] = manifests[TRAIN_SET].loc[7, "sha256"]
    verdict = check_manifests(manifests, ValidateParams(bad_images="exclude"))["imagenet"]
    assert describe_verdict(verdict, skipped) == (
        "imagenet: 35 usable images of 12 classes; excluded 1, 1 of them also in the train set; "
        "skipped 2 (hidden: 2); 1 warnings"
    )


@pytest.mark.slow
def test_leaks_are_the_evaluation_sets_failure_and_name_both_paths(manifests: Manifests) -> None:
    manifests["imagenet"].loc[4, "sha256"] = manifests[TRAIN_SET].loc[7, "sha256"]
    verdict = only(check_manifests(manifests, ValidateParams()), "imagenet")
    assert verdict.failures == (
        "n00000001/1.JPEG: same content as n00000002/1.JPEG (of another class) of the train set, "
        "which no evaluation image may share; remove one of them",
    )


@pytest.mark.slow
def test_leaked_images_are_excluded_named_and_counted(manifests: Manifests) -> None:
    frame = manifests["imagenet"]
    frame.loc[4, "sha256"] = manifests[TRAIN_SET].loc[7, "sha256"]
    frame.loc[2, "problem"] = "truncated"
    verdicts = check_manifests(manifests, ValidateParams(bad_images="exclude"))
    verdict = verdicts["imagenet"]
    assert verdict.passed
    assert (verdict.images, verdict.leaked, verdict.failures) == (34, 1, ())
    assert verdict.excluded == ("imagenet/n00000000/2.JPEG", "imagenet/n00000001/1.JPEG")
    assert verdict.warnings == (
        "n00000000/2.JPEG: truncated; excluded",
        "n00000001/1.JPEG: same content as n00000002/1.JPEG (of another class) of the train set; "
        "excluded",
    )
    assert verdicts[TRAIN_SET].excluded == ()  # the training keeps its image
    few = check_manifests(manifests, ValidateParams(bad_images="exclude", minimum_per_class=3))
    assert [line for line in few["imagenet"].failures if "n00000001" in line] == [
        "class n00000001: found 2 usable images, expected 3 or more (validate.minimum_per_class)"
    ]


def test_equal_content_of_unreadable_files_is_no_leak(manifests: Manifests) -> None:
    for name in (TRAIN_SET, "imagenet"):
        manifests[name].loc[0, ["sha256", "problem"]] = ["0" * 64, "empty file"]
    verdicts = check_manifests(manifests, ValidateParams(bad_images="exclude"))
    assert all(verdict.passed for verdict in verdicts.values())


@pytest.mark.slow
def test_repeats_inside_a_set_and_sixteen_bits_only_warn(manifests: Manifests) -> None:
    frame = manifests[TRAIN_SET]
    frame.loc[[1, 5], "sha256"] = frame.loc[0, "sha256"]
    frame.loc[9, "problem"] = "16-bit: scaled to 8 bits"
    verdict = check_manifests(manifests, ValidateParams())[TRAIN_SET]
    assert verdict.passed
    assert verdict.images == len(frame)
    assert verdict.warnings == (
        "n00000000/1.JPEG: same content as n00000000/0.JPEG; both are used",
        "n00000001/2.JPEG: same content as n00000000/0.JPEG (of another class); both are used",
        "n00000003/0.JPEG: 16-bit: scaled to 8 bits",
    )


@pytest.mark.slow
def test_bad_files_stop_or_are_excluded(manifests: Manifests) -> None:
    frame = manifests["imagenet"]
    frame.loc[[2, 20], "problem"] = ["truncated", "not an image"]
    frame.loc[[2, 20], ["width", "height"]] = 0
    stopped = only(check_manifests(manifests, ValidateParams()), "imagenet")
    assert stopped.failures == ("n00000000/2.JPEG: truncated", "n00000006/2.JPEG: not an image")
    assert (stopped.excluded, stopped.warnings, stopped.images) == ((), (), 34)
    verdicts = check_manifests(manifests, ValidateParams(bad_images="exclude"))
    assert verdicts["imagenet"] == ValidationResult(
        dataset="imagenet",
        passed=True,
        images=34,
        classes=12,
        absent=(),
        excluded=("imagenet/n00000000/2.JPEG", "imagenet/n00000006/2.JPEG"),
        failures=(),
        warnings=(
            "n00000000/2.JPEG: truncated; excluded",
            "n00000006/2.JPEG: not an image; excluded",
        ),
        evidence=(
            Evidence(
                text="n00000000/2.JPEG: truncated; excluded", images=("imagenet/n00000000/2.JPEG",)
            ),
            Evidence(
                text="n00000006/2.JPEG: not an image; excluded",
                images=("imagenet/n00000006/2.JPEG",),
            ),
        ),
    )


@pytest.mark.slow
def test_long_lists_are_capped_in_words_and_complete_in_excluded(manifests: Manifests) -> None:
    manifests["imagenet"].loc[:29, "problem"] = "truncated"
    verdict = check_manifests(manifests, ValidateParams(bad_images="exclude", minimum_per_class=0))[
        "imagenet"
    ]
    assert len(verdict.excluded) == 30
    assert len(verdict.warnings) == gx_runner.MAX_LISTED + 1
    assert verdict.warnings[-1] == "and 10 more like the 20 above, up to n00000009/2.JPEG"


@pytest.mark.slow
def test_counts_are_of_usable_images(manifests: Manifests) -> None:
    manifests["imagenet-r"].loc[0, "problem"] = "truncated"
    verdict = only(
        check_manifests(manifests, ValidateParams(bad_images="exclude", minimum_per_class=2)),
        "imagenet-r",
    )
    assert verdict.failures == (
        "class n00000003: found 1 usable images, expected 2 or more (validate.minimum_per_class)",
    )
    manifests["imagenet-r"]["problem"] = "truncated"
    none = check_manifests(manifests, ValidateParams(bad_images="exclude", minimum_per_class=0))[
        "imagenet-r"
    ]
    assert none.failures == ("found no usable image, expected one or more",)


def test_wrong_values_stop(manifests: Manifests) -> None:
    wrong = [
        ("label", 12, "found label 12, expected 0 to 11"),
        ("label", 7, "found class n00000001 with label 7, of n00000007"),
        ("wnid", "n12345678", "found class n12345678, which the train set does not have"),
        (
            "image_id",
            "imagenet/n00000000/0.JPEG",
            "image_id imagenet/n00000000/0.JPEG occurs more than once",
        ),
        ("width", 0, "found width 0, expected 1 or more"),
        ("height", -1, "found height -1, expected 1 or more"),
        ("bytes", 0, "found 0 bytes, expected 1 or more"),
        ("sha256", "12ab", "found sha256 '12ab', expected 64 hex digits"),
    ]
    frame = manifests["imagenet"]
    for row, (column, value, _) in enumerate(wrong, start=3):
        frame.loc[row, column] = value
    failures = only(check_manifests(manifests, ValidateParams()), "imagenet").failures
    assert {
        f"{frame.loc[row, 'path']}: {reason}" for row, (*_, reason) in enumerate(wrong, start=3)
    } < set(failures)
    # Beside these: the first of the two equal ids, the second's own path, and a label and a wnid
    # that no longer agree.
    assert len(failures) == len(wrong) + 4


def test_wrong_columns_stop_before_anything_reads_them(manifests: Manifests) -> None:
    manifests["imagenet"] = manifests["imagenet"].drop(columns="wnid").astype({"label": "float64"})
    failures = only(check_manifests(manifests, ValidateParams()), "imagenet").failures
    assert "column wnid: found another type or no such column, expected string" in failures
    assert "column label: found another type or no such column, expected int64" in failures
    manifests[TRAIN_SET] = manifests[TRAIN_SET].astype({"width": "str"})
    verdicts = check_manifests(manifests, ValidateParams())
    assert verdicts["imagenet-r"].failures == (
        f"not checked: the manifest of {TRAIN_SET} is not valid",
    )
    with pytest.raises(DataError, match=f"expected {TRAIN_SET}"):
        check_manifests({"imagenet": manifests["imagenet"]}, ValidateParams())


@pytest.mark.slow
def test_a_new_set_changes_no_other_verdict(manifests: Manifests, tmp_path: Path) -> None:
    manifests[TRAIN_SET].loc[1, "sha256"] = manifests[TRAIN_SET].loc[0, "sha256"]
    before = check_manifests(manifests, ValidateParams())
    leaking = manifests[TRAIN_SET].assign(image_id="leaking/" + manifests[TRAIN_SET]["path"])
    added = {"new": rows("new"), "leaking": leaking, "bad": rows("bad").assign(label=99)}
    after = check_manifests({**added, **manifests}, ValidateParams())
    for name, verdict in before.items():
        write_json(tmp_path / "before.json", verdict)
        write_json(tmp_path / "after.json", after[name])
        assert (tmp_path / "before.json").read_bytes() == (tmp_path / "after.json").read_bytes()
        assert read_json(ValidationResult, tmp_path / "after.json") == verdict
    assert [name for name in added if after[name].passed] == ["new"]


class Reader(HTMLParser):
    """Tags, attributes and text of a page, as a browser would see them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_hostile_names_are_text_on_the_page(manifests: Manifests, tmp_path: Path) -> None:
    frame = manifests["imagenet"]
    hostile = [
        "n00000000/<script>alert(1)</script>.JPEG",
        "n00000000/\"><img src=x onerror='alert(1)'>{{ 7 * 7 }}{path}.JPEG",
        "n00000000/new\nline\u202egpj.JPEG",
    ]
    frame.loc[:2, "path"] = hostile
    frame.loc[:2, "image_id"] = ["imagenet/" + path for path in hostile]
    frame.loc[:2, "problem"] = "truncated"
    verdicts = check_manifests(manifests, ValidateParams(minimum_per_class=0))
    assert len(verdicts["imagenet"].failures) == 3
    page = tmp_path / "reports" / "validation.html"
    write_validation_page(verdicts, manifests, skip_nothing(manifests), page, {})
    reader = Reader(page.read_text(encoding="utf-8"))
    assert not {"script", "img", "link", "iframe", "object"} & set(reader.tags)
    assert not {"src", "onerror", "onload"} & {name for name, _ in reader.attributes}
    assert all(
        value.startswith("#") for name, value in reader.attributes if name == "href" and value
    )
    assert "url(" not in page.read_text(encoding="utf-8")
    for path in (*hostile[:2], r"n00000000/new\nline\u202egpj.JPEG"):
        assert reader.text.count(path) == 2  # as a finding and in the table
    assert "Validation stopped the pipeline" in reader.text
    again = tmp_path / "again.html"
    write_validation_page(verdicts, manifests, skip_nothing(manifests), again, {})
    assert page.read_bytes() == again.read_bytes()


@pytest.mark.slow
def test_a_title_stands_beside_the_name_that_params_have(
    manifests: Manifests, tmp_path: Path
) -> None:
    verdicts = check_manifests(manifests, ValidateParams())
    skipped, page = skip_nothing(manifests), tmp_path / "validation.html"
    titles = {"imagenet": "Our <b>photographs"}
    write_validation_page(verdicts, manifests, skipped, page, {}, titles)
    text = page.read_text(encoding="utf-8")
    assert '<h2>Our &lt;b&gt;photographs</h2>\n<span class="soft">imagenet</span>' in text
    assert f"<h2>{TRAIN_SET}</h2>" in text
    line = describe_verdict(verdicts["imagenet"], skipped["imagenet"], titles["imagenet"])
    assert line.startswith("Our <b>photographs (imagenet): 36 usable images")


@pytest.mark.slow
def test_nothing_is_wrong_with_the_page_in_a_browser(
    browser: Browser, manifests: Manifests, tmp_path: Path
) -> None:
    place, wrong = f"{WNIDS[0]}/image_0_0.JPEG", "<b>" + 20 * "long" + "\x1b/1.JPEG"
    roots = dict.fromkeys((TRAIN_SET, "imagenet"), draw_set(tmp_path, 1, folders=(WNIDS[0],)))
    for name in roots:  # a leak that can be shown
        manifests[name].loc[0, ["image_id", "path", "sha256"]] = [
            f"{name}/{place}",
            place,
            "a" * 64,
        ]
    manifests["imagenet"].loc[1, ["image_id", "path", "problem"]] = [
        f"imagenet/{wrong}",
        wrong,
        "truncated",
    ]
    page = tmp_path / "validation.html"
    write_validation_page(
        check_manifests(manifests, ValidateParams(bad_images="exclude")),
        manifests,
        skip_nothing(manifests),
        page,
        roots,
    )
    assert page.read_text(encoding="utf-8").count("<img") == 2
    assert faults(browser, page) == []


@pytest.mark.slow
def test_page_of_clean_sets_says_so(manifests: Manifests, tmp_path: Path) -> None:
    write_validation_page(
        check_manifests(manifests, ValidateParams()),
        manifests,
        skip_nothing(manifests),
        tmp_path / "validation.html",
        {},
    )
    text = Reader((tmp_path / "validation.html").read_text(encoding="utf-8")).text
    assert "All datasets passed validation" in text
    assert "84 usable images in 3 datasets" in " ".join(text.split())
    assert "Files with a problem" not in text


@pytest.mark.skipif(not SUITE, reason="DENSECL_SUITE is unset")
def test_every_broken_file_of_the_suite_is_named(tmp_path: Path) -> None:
    suite = Path(SUITE or "")
    train = tmp_path / "train"
    for wnid in ("n02084071", "n02121620"):
        (train / wnid).mkdir(parents=True)
        for number in (3, 4, 5, 6):
            for file in (suite / "imagenet/train" / wnid).glob(f"{wnid}_{number}.JPEG"):
                shutil.copy(file, train / wnid)
    val = tmp_path / "val" / "n02121620"
    shutil.copytree(suite / "broken", val)
    for root in (suite / "imagenet/val").glob("n0208*"):
        shutil.copytree(root, tmp_path / "val" / root.name)
    classes = list_classes(train)
    manifests = {}
    for name, folder in {TRAIN_SET: "train", "imagenet": "val"}.items():
        write_manifest(
            scan_dataset(name, tmp_path / folder, "wnid", classes, 1), tmp_path / f"{name}.parquet"
        )
        manifests[name] = read_manifest(tmp_path / f"{name}.parquet")
    verdicts = check_manifests(manifests, ValidateParams(bad_images="exclude"))
    assert verdicts[TRAIN_SET].passed
    said = [
        line.removeprefix("n02121620/")
        for line in (*verdicts["imagenet"].failures, *verdicts["imagenet"].warnings)
    ]
    odd = next(path.name for path in val.iterdir() if path.name.startswith("n02084071_d"))
    shared = "of the train set; excluded"
    assert sorted(said) == sorted(
        [
            "all_black.JPEG: blank: every pixel is the same; excluded",
            "cmyk.JPEG: CMYK: converted to RGB as Pillow does",
            f"duplicate_of_train.JPEG: same content as n02121620/n02121620_3.JPEG {shared}",
            f"{to_printable(odd)}: same content as n02084071/n02084071_5.JPEG (of another class) {shared}",
            f"{to_printable(odd)}: found in class n02121620, but its file name says n02084071; mislabelled folder or file",
            "png16.JPEG: 16-bit: scaled to 8 bits",
            "text_file.JPEG: not an image; excluded",
            "truncated.JPEG: truncated; excluded",
            "zero_byte.JPEG: empty file; excluded",
        ]
    )
    assert f"imagenet/n02121620/{odd}" in set(manifests["imagenet"]["image_id"])
    assert len(verdicts["imagenet"].excluded) == 6  # two of them leaked
    write_validation_page(
        verdicts, manifests, skip_nothing(manifests), tmp_path / "validation.html", {}
    )
    text = Reader((tmp_path / "validation.html").read_text(encoding="utf-8")).text
    assert all(to_printable(path.name) in text for path in val.iterdir())
