"""The picture of matches, and the cautions that follow from histories and params."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save_file

from densecl.artifacts import ReportPlan
from densecl.config.params import ReportParams
from densecl.report.charts.matches import GAP_PX, MAX_LINES, VIEW_PX, build_match_picture
from densecl.report.summary import check_learned_position


def saved(path, shift: int, size: int = 32) -> None:
    grey = np.full((3, 3, size, size), 128, dtype=np.uint8)
    truth = np.tile(np.arange(16), (3, 1))
    save_file(
        {
            "first": grey,
            "second": grey,
            "truth": truth,
            "match": (truth + shift) % 16,
            "visible": np.ones((3, 16), np.uint8),
        },
        path,
    )


@pytest.mark.parametrize(("shift", "right"), [(0, True), (10, False)])
def test_lines_end_at_the_match_and_say_whether_it_is_right(tmp_path, shift, right):
    saved(tmp_path / "matches.safetensors", shift)
    made = build_match_picture("dense", tmp_path / "matches.safetensors")
    lines = [line for pair in made.pairs for line in pair.lines]
    assert 3 * 4 <= len(lines) <= 3 * MAX_LINES
    assert all(line.is_correct for line in lines) == right
    assert ("100 %" in made.alt) == right
    first = made.pairs[0].lines[0]  # of patch 0, at the middle of a 4 x 4 grid's first cell
    column, row = shift % 4, shift // 4
    assert (first.x1, first.y1) == (VIEW_PX / 8, VIEW_PX / 8)
    assert (first.x2, first.y2) == (
        VIEW_PX + GAP_PX / 2 + (column + 0.5) * VIEW_PX / 4,
        (row + 0.5) * VIEW_PX / 4,
    )


def test_views_are_no_larger_than_they_are_drawn(tmp_path):
    saved(tmp_path / "matches.safetensors", 0, size=224)
    uri = build_match_picture("dense", tmp_path / "matches.safetensors").pairs[0].first
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (VIEW_PX, VIEW_PX)


def test_matches_no_better_than_the_same_index_are_said_to_have_learned_position():
    def history(*found: float) -> dict[str, list[pd.DataFrame]]:
        return {
            "dense": [
                pd.DataFrame(
                    {
                        "match/dense/moved0": [0.9, last],
                        "match/last/moved0": [0.9, 0.5],
                        "match/identity/moved0": [0.02, 0.02],
                    }
                )
                for last in found
            ]
        }

    def plan(features: str) -> ReportPlan:
        contrast = {"dense": {"correspondence_features": features}}
        return ReportPlan(
            modes=("dense",),
            seeds=(0,),
            datasets=(),
            protocols={},
            rendered=(),
            values=ReportParams(),
            params={"contrast": contrast},
        )

    assert (
        "learned position, not content: of"
        in check_learned_position(plan("dense"), history(0.01))[0]
    )
    assert (
        "in 2 of 3 trainings: of"
        in check_learned_position(plan("dense"), history(0.01, 0.3, 0.0))[0]
    )
    assert check_learned_position(plan("dense"), history(0.3)) == []
    assert (
        check_learned_position(plan("dense"), {"dense": [pd.DataFrame({"epoch": [0]})], "none": []})
        == []
    )
    for other in ("backbone", "geometric"):  # other features, or none, decide what is matched
        assert check_learned_position(plan(other), history(0.01)) == []
