"""Caveats on the number of classes and of images, on the first screen of a real report."""

import pandas as pd
import pytest

from densecl import paths
from densecl.artifacts import Evaluation, ValidationResult, read_json, write_json
from densecl.datasets.storage.manifest import write_manifest
from densecl.report.render import write_report
from tests.report.report_factory import RECORDS, SETS, _listed, make

pytestmark = pytest.mark.slow  # each test writes a report


def plant_training_set(root, labels: list[int], excluded: tuple[int, ...] = ()) -> None:
    frame = pd.DataFrame(
        {"image_id": [f"imagenet-train/{i}.png" for i in range(len(labels))], "label": labels}
    )
    path = root / paths.manifest_file("imagenet-train")
    write_manifest(_listed(frame, frame["image_id"]), path)
    verdict = ValidationResult(
        dataset="imagenet-train",
        passed=True,
        excluded=tuple(f"imagenet-train/{i}.png" for i in excluded),
    )
    write_json(root / paths.validation_file("imagenet-train"), verdict)


def report_of(root) -> tuple[str, str]:
    """The page and the text."""
    write_report(make(root, ("dense", "none")), root, RECORDS)
    page = (root / paths.REPORT_PAGE).read_text(encoding="utf-8")
    return page, (root / paths.REPORT_TEXT).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("labels", "excluded", "expected"),
    [
        ([0, 0, 0], (), "imagenet-train has a single class, n90000000"),
        ([0, 0, 1, 1], (2, 3), "imagenet-train has a single class, n90000000"),
        ([0, 0, 1, 2], (), "2 of 3 classes of imagenet-train have no second image: n90000001, n9"),
        ([0, 0, 1, 1], (3,), "1 of 2 classes of imagenet-train have no second image: n90000001."),
        ([0, 0, 1, 1], (), None),
    ],
)
def test_few_classes_or_images_are_on_the_first_screen(tmp_path, labels, excluded, expected):
    plant_training_set(tmp_path, labels, excluded)
    for text, end in zip(report_of(tmp_path), ("<main>", "### Top-1"), strict=True):
        if expected is None:
            assert "second image" not in text
            assert "single class" not in text
        else:
            assert 0 < text.find(expected) < text.find(end)


def test_a_set_scored_over_one_class_is_named(tmp_path):
    plan = make(tmp_path, ("dense", "none"))
    for mode in plan.modes:
        file = tmp_path / paths.evaluation_file("sketch", mode, 0)
        record = read_json(Evaluation, file)
        write_json(file, record.model_copy(update={"classes": 1}))
    write_report(plan, tmp_path, RECORDS)
    text = (tmp_path / paths.REPORT_TEXT).read_text(encoding="utf-8")
    assert "sketch is scored over a single class" in text
    assert sum(f"{name} is scored over a single class" in text for name in SETS) == 1
