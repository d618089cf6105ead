"""The picture of matches, and the cautions that follow from histories and params."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save_file

from densecl.artifacts import ReportPlan
from densecl.config.params import Report
from densecl.report.caveats import learned_position
from densecl.report.charts.matches import GAP, LINES, SIDE, picture


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
    made = picture("dense", tmp_path / "matches.safetensors")
    lines = [line for pair in made.pairs for line in pair.lines]
    assert 3 * 4 <= len(lines) <= 3 * LINES
    assert all(line.right for line in lines) == right
    assert ("100 %" in made.alt) == right
    first = made.pairs[0].lines[0]  # of patch 0, at the middle of a 4 x 4 grid's first cell
    column, row = shift % 4, shift // 4
    assert (first.x1, first.y1) == (SIDE / 8, SIDE / 8)
    assert (first.x2, first.y2) == (
        SIDE + GAP / 2 + (column + 0.5) * SIDE / 4,
        (row + 0.5) * SIDE / 4,
    )


def test_views_are_no_larger_than_they_are_drawn(tmp_path):
    saved(tmp_path / "matches.safetensors", 0, size=224)
    uri = picture("dense", tmp_path / "matches.safetensors").pairs[0].first
    assert Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).size == (SIDE, SIDE)


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
            values=Report(),
            params={"contrast": contrast},
        )

    assert "learned position, not content: of" in learned_position(plan("dense"), history(0.01))[0]
    assert "in 2 of 3 trainings: of" in learned_position(plan("dense"), history(0.01, 0.3, 0.0))[0]
    assert learned_position(plan("dense"), history(0.3)) == []
    assert (
        learned_position(plan("dense"), {"dense": [pd.DataFrame({"epoch": [0]})], "none": []}) == []
    )
    for other in ("backbone", "geometric"):  # other features, or none, decide what is matched
        assert learned_position(plan(other), history(0.01)) == []
