"""Scores that are not shown to be better than guessing are named beside every number of them."""

import pandas as pd
import pytest

from densecl import paths
from densecl.report.render import write_report
from tests.report import report_factory
from tests.report.report_factory import RECORDS, make


@pytest.fixture(scope="module")
def guessing(tmp_path_factory) -> tuple[str, str]:
    """Terminal and page of a run in which `none` answers every image of stylized with class 3, of
    nine classes.
    """
    root = tmp_path_factory.mktemp("guessing")
    draw = report_factory.predictions

    def answer(dataset: str, mode: str, seed: int, classes: int) -> pd.DataFrame:
        rows = draw(dataset, mode, seed, classes)
        if (dataset, mode) == ("stylized", "none"):
            columns = ["prediction", "prediction_unmasked"]
            rows[columns] = 3
            rows["correct"] = rows["correct_unmasked"] = rows["label"] == 3
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_factory, "predictions", answer)
        told = write_report(make(root), root, RECORDS)
    return told, (root / paths.REPORT_PAGE).read_text()


@pytest.mark.slow
def test_models_at_chance_are_named_in_the_terminal(guessing):
    told = guessing[0]
    assert "At chance, not shown to be better than guessing: stylized (none). Drops," in told
    assert "One class is predicted for every image: stylized (none, seed 0)." in told


@pytest.mark.slow
def test_the_page_names_them_beside_score_drop_and_point(guessing):
    page = guessing[1]
    row = page[page.index("<span>stylized</span>") :].partition("</tr>")[0]
    assert row.count("<small>at chance</small>") == 2  # score and drop of `none`
    assert "At chance: none." in page  # the caption of the scatter
    assert "by some 0.0 points" not in page


@pytest.mark.slow
def test_scores_above_chance_have_no_such_remark(several):
    root, told = several
    assert "at chance" not in told.lower()
    assert "at chance" not in (root / paths.REPORT_PAGE).read_text()
