"""The stage prepare: a bar on a terminal and only there, and an archive where a folder may
stand.
"""

import io
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from densecl import paths
from densecl.artifacts import DatasetPlan, write_json
from densecl.config.params import DatasetParams
from steps import prepare
from tests.conftest import WNIDS, draw_set


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def listed(root: str) -> pd.DataFrame:
    dataset = DatasetParams(root=root, tracked_by=root)
    plan = DatasetPlan(
        name="imagenet-train",
        dataset=dataset,
        train=DatasetParams(root=root, tracked_by=root),
        preprocess=None,
        protocol="folder",
        classes=(),
        optional=False,
    )
    write_json(paths.plan_file("imagenet-train"), plan)
    prepare.main("imagenet-train")
    return pd.read_parquet(paths.manifest_file("imagenet-train"))


def test_a_bar_on_a_terminal_and_nothing_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_set(Path("train"), 3)
    shutil.make_archive("train", "zip", "train")
    expected = listed("train")
    assert capsys.readouterr() == ("9 files of 3 classes in train\n", "")
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    pd.testing.assert_frame_equal(listed("train.zip"), expected)
    assert list(expected["wnid"].unique()) == list(WNIDS)
    assert "imagenet-train" in screen.getvalue()
    assert "9/9" in screen.getvalue()
    assert capsys.readouterr().out == "9 files of 3 classes in train.zip\n"
