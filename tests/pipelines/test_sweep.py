"""`python -m pipelines sweep` on a small project: equal budgets, a planted effect, a kill in the
middle, no evaluation set, and a preset that can be used.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from playwright.sync_api import Browser

from densecl.config.params import load_params
from densecl.config.sweep_params import resolve_space
from tests.conftest import draw_set
from tests.page_checks import faults
from tests.training.training_project import ENVIRONMENT, PARAMS

MODES = ("dense", "global", "none")
BUDGET = 3
# Of the learning rates, three of five factors of ten are useless: the params' own is among them.
SECTIONS: dict[str, Any] = {
    "train": {**PARAMS["train"], "epochs": 2, "learning_rate": 1e-6},
    "sweep": {
        "seed": 2,
        "space": {
            "train": {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}},
            "contrast": {"temperature": [0.1, 0.2]},
            "dense": {"correspondence_features": ["dense", "geometric"]},
        },
    },
}


def make_project(folder: Path) -> Path:
    """The evaluation set is a file that nobody can list: a sweep that reads it fails."""
    draw_set(folder / "imagenet-train", 20)
    (folder / "imagenet").write_text("no folder")
    text = "# the values of a user\n" + yaml.safe_dump(PARAMS | SECTIONS, sort_keys=False)
    (folder / "params.yaml").write_text(text)
    return folder


def start_sweep(folder: Path, budget: int = BUDGET, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines", "sweep", "--budget", str(budget)]
    return subprocess.Popen(
        [*command, "--jobs", "1", *options],
        cwd=folder,
        env=ENVIRONMENT | {"DENSECL_WORKERS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_sweep(folder: Path, budget: int = BUDGET, *options: str) -> tuple[int, str, str]:
    process = start_sweep(folder, budget, *options)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def read_results(folder: Path) -> dict[str, str]:
    """The files of every trial that follow from params and seed alone."""
    trials = folder / "sweeps" / "default" / "trials"
    return {
        str(path.relative_to(trials)): path.read_bytes().hex()
        for name in ("result.json", "predictions.parquet", "history.csv", "plan.json")
        for path in sorted(trials.rglob(name))
    }


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = make_project(tmp_path_factory.mktemp("swept"))
    status, out, err = run_sweep(folder)
    assert status == 0, err
    return folder, out


pytestmark = pytest.mark.slow


def test_every_mode_has_the_same_number_of_trials(swept):
    trials = pd.read_csv(swept[0] / "reports" / "sweep.csv")
    assert trials.groupby("mode").size().to_dict() == dict.fromkeys(MODES, BUDGET)
    assert trials.groupby("mode")["chosen"].sum().to_dict() == dict.fromkeys(MODES, 1)
    assert trials["failure"].isna().all()


def test_all_modes_try_the_same_values_and_the_first_has_those_of_the_params(swept):
    trials = pd.read_csv(swept[0] / "reports" / "sweep.csv").set_index(["mode", "index"])
    rates = trials["train.learning_rate"].unstack("mode")
    assert rates.loc[0].isna().all()
    assert (rates.loc[1:].nunique(axis=1) == 1).all()
    assert rates["none"].nunique() == BUDGET - 1
    plan = json.loads((swept[0] / "sweeps/default/trials/none-0/plan.json").read_text())
    assert plan["train"]["train"]["learning_rate"] == 1e-6


def test_the_planted_effect_is_found_and_tuned_beats_default_on_images_that_chose_nothing(swept):
    trials = pd.read_csv(swept[0] / "reports" / "sweep.csv")
    for mode in MODES:
        own = trials[trials["mode"] == mode].set_index("index")
        best = own[own["chosen"]].iloc[0]
        assert best["train.learning_rate"] > 1e-3
        assert best["top1_select"] == own["top1_select"].max()
        assert best["top1_confirm"] >= own.loc[0, "top1_confirm"]
        assert best["loss_confirm"] < own.loc[0, "loss_confirm"] - 0.3


def test_the_scores_are_those_of_the_kept_predictions(swept):
    folder = swept[0] / "sweeps" / "default" / "trials"
    for path in folder.glob("*/result.json"):
        result = json.loads(path.read_text())
        rows = pd.read_parquet(path.with_name("predictions.parquet"))
        for part in ("select", "confirm"):
            own = rows[rows["part"] == part]
            assert result[f"top1_{part}"] == (own["label"] == own["prediction"]).mean()
        assert result["images"] == [48, 6, 6]
        assert not (path.parent / "model").exists()


def test_the_preset_has_the_chosen_values_per_mode_and_the_comments_of_the_params(swept):
    path = swept[0] / "presets" / "tuned-default.yaml"
    assert "# the values of a user" in path.read_text()
    params = load_params(path)
    assert params.tuning is not None
    assert params.tuning.trials == dict.fromkeys(MODES, BUDGET)
    trials = pd.read_csv(swept[0] / "reports" / "sweep.csv")
    best = trials[trials["chosen"]].set_index("mode")
    for mode in MODES:
        rate = params.mode_settings.resolve_train(mode).learning_rate
        assert rate == best.loc[mode, "train.learning_rate"]
        assert params.mode_settings.resolve_train(mode).batch_size == PARAMS["train"]["batch_size"]
        assert resolve_space(params.sweep.space, params.mode_settings, mode)
    dense = params.mode_settings.resolve_contrast("dense")
    assert dense.correspondence_features == best.loc["dense", "contrast.correspondence_features"]


def test_the_page_is_whole(swept, browser: Browser):
    page = swept[0] / "reports" / "sweep.html"
    assert f"{BUDGET} trials for each of dense, global and none." in page.read_text()
    assert faults(browser, page) == []


def test_a_sweep_that_was_killed_goes_on_to_the_same_result(swept, tmp_path: Path):
    """By a signal first, then by kill -9, each within a trial."""
    folder = make_project(tmp_path)
    for kill, done in ((signal.SIGTERM, 1), (signal.SIGKILL, 4)):
        process = start_sweep(folder)
        trials = folder / "sweeps" / "default" / "trials"
        deadline = time.monotonic() + 300
        while len(list(trials.glob("*/result.json"))) < done and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, kill)
        _, err = process.communicate(timeout=60)
        assert process.returncode == (75 if kill == signal.SIGTERM else -signal.SIGKILL), err
    status, _, err = run_sweep(folder)
    assert status == 0, err
    assert read_results(folder) == read_results(swept[0])
    for name in ("reports/sweep.csv", "presets/tuned-default.yaml"):
        assert (folder / name).read_bytes() == (swept[0] / name).read_bytes()


def test_a_finished_sweep_runs_nothing_and_a_smaller_budget_or_other_params_are_refused(swept):
    folder = swept[0]
    before = read_results(folder)
    status, out, _ = run_sweep(folder)
    assert (status, "top-1" in out) == (0, False)
    assert read_results(folder) == before
    status, _, err = run_sweep(folder, BUDGET - 1)
    assert (status, len(err.splitlines())) == (2, 1)
    assert f"has {BUDGET} trials of each mode already" in err
    text = (folder / "params.yaml").read_text()
    try:
        (folder / "params.yaml").write_text(text.replace("batch_size: 8", "batch_size: 16"))
        status, _, err = run_sweep(folder)
    finally:
        (folder / "params.yaml").write_text(text)
    assert (status, len(err.splitlines())) == (2, 1)
    assert "settings.train.batch_size is 16, but its trials began with 8" in err
