"""The picture of matches, and the cautions that follow from histories and params."""

from __future__ import annotations

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.numpy import save_file

from densecl.reporting.cautions import learned_position
from densecl.reporting.matches import RIGHT, WRONG, picture


def pixels_of(colour: str, drawn: np.ndarray) -> int:
    target = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(drawn.astype(int) - target).max(-1) < 30).sum())


@pytest.mark.parametrize(("shift", "right"), [(0, True), (10, False)])
def test_right_matches_are_green_and_wrong_ones_orange(tmp_path, shift, right):
    grey = np.full((3, 3, 32, 32), 128, dtype=np.uint8)
    truth = np.tile(np.arange(16), (3, 1))
    path = tmp_path / "matches.safetensors"
    save_file(
        {"first": grey, "second": grey, "truth": truth, "match": (truth + shift) % 16, "visible": np.ones((3, 16), np.uint8)}, path
    )  # fmt: skip
    made = picture("dense", path)
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(made.source.split(",")[1]))).convert("RGB"))
    green, orange = pixels_of(RIGHT, drawn), pixels_of(WRONG, drawn)
    assert (green > 500 and orange == 0) if right else orange > 500
    assert ("100 %" in made.alt) == right


def test_matches_no_better_than_the_same_index_are_said_to_havelearned_position():
    def history(found: float) -> dict[str, list[pd.DataFrame]]:
        return {"dense": [pd.DataFrame({"match/dense/moved0": [0.9, found], "match/identity/moved0": [0.02, 0.02]})]}

    assert "learned position" in learned_position(history(0.01))[0]
    assert learned_position(history(0.3)) == []
    assert learned_position({"dense": [pd.DataFrame({"epoch": [0]})], "none": []}) == []
