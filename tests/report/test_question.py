"""The page asks what its results can answer."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from densecl import paths
from densecl.report.render import write_report
from densecl.report.summary import build_question
from tests.report.report_factory import RECORDS, make


@pytest.fixture(scope="module")
def plan_and_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("question")
    return make(root), root


def write(plan_and_root, **changes) -> tuple[str, str, str]:
    """Terminal, page and Markdown of a part of the results."""
    plan, root = plan_and_root
    told = write_report(plan.model_copy(update=changes), root, RECORDS)
    return told, *((root / path).read_text() for path in (paths.REPORT_PAGE, paths.REPORT_TEXT))


@pytest.mark.slow
def test_without_a_shifted_dataset_no_question_of_robustness_is_asked(plan_and_root):
    told, page, text = write(plan_and_root, datasets=("imagenet",), probes=())
    for content in (told, page, text):
        assert "more robust" not in content
        assert "No shifted dataset was evaluated" in content
        assert "Drop from the control" not in content
    assert "(shifted mean)" not in told
    assert "drop " not in told
    assert "mean of shifted" not in page
    assert "Which of the modes dense, global and none is better on imagenet, at what cost?" in page


@pytest.mark.slow
def test_with_one_mode_nothing_is_compared(plan_and_root):
    _, page, text = write(plan_and_root, modes=("none",))
    for content in (page, text):
        assert "One mode, none: its scores, compared with no other mode." in content
        assert "more robust" not in content
    assert "the same drop as" not in page
    assert "Points above the dotted line" not in page


def test_with_one_mode_and_its_variant_the_question_is_that_of_the_variant():
    """`dense-x` is no second mode, whatever its name begins with."""
    plan = SimpleNamespace(
        modes=("dense", "dense-x"), main_modes=("dense",), variants={"dense-x": "dense"}, titles={}
    )
    question = build_question(SimpleNamespace(plan=plan, shifted_sets=("sketch",)))
    assert question == "How does dense-x compare with dense, and at what cost?"


def test_with_modes_and_shifts_the_question_is_that_of_the_method(several: tuple[Path, str]):
    root, _ = several
    assert "more robust than global, or than none" in (root / paths.REPORT_PAGE).read_text()
