"""One trial without its training: what it leaves of a loss that is not finite, and its seed."""

from pathlib import Path

import pytest

from densecl import paths
from densecl.artifacts import read_json
from densecl.config.params import parse_params
from densecl.datasets.manifests.listing import list_classes
from densecl.datasets.manifests.scan import scan_dataset
from densecl.datasets.storage.manifest import write_manifest
from densecl.training.train_state import DivergedError, TrainingError
from densecl.tuning import trial as trials
from densecl.tuning.records import SweepPlan, TrialResult
from densecl.tuning.trial import run_trial
from pipelines.studies.sweep.begin import build_trial
from tests.conftest import WNIDS, draw_set
from tests.training.training_project import PARAMS


@pytest.fixture
def plan(tmp_path: Path, monkeypatch) -> SweepPlan:
    monkeypatch.chdir(tmp_path)
    draw_set(tmp_path / "imagenet-train", 6)
    root = Path("imagenet-train")
    frame = scan_dataset("imagenet-train", root, "wnid", list_classes(root), 1)
    write_manifest(frame, paths.sweep_manifest("s"))
    params = parse_params(PARAMS, "p")
    return SweepPlan(
        name="s",
        sweep=params.sweep,
        modes=("none",),
        settings=params.mode_settings,
        network=params.network,
        data=params.data,
        root="imagenet-train",
        protocol="folder",
        preprocess=None,
        classes=WNIDS,
    )


def fail(error: Exception):
    def train(*_: object) -> None:
        raise error

    return train


def test_a_loss_that_is_not_finite_is_the_worst_result(plan: SweepPlan, monkeypatch):
    monkeypatch.setattr(trials, "train", fail(DivergedError("loss is nan")))
    run_trial(plan, build_trial(plan, "none", 1, {"train.learning_rate": 1.0}), {})
    result = read_json(TrialResult, paths.trial_result("s", "none", 1))
    assert (result.top1_select, result.top1_confirm, result.failure) == (0.0, 0.0, "loss is nan")
    assert result.loss_select is None
    assert result.images == (12, 3, 3)
    assert result.values == {"train.learning_rate": 1.0}


def test_any_other_failure_is_an_error_and_no_result(plan: SweepPlan, monkeypatch):
    monkeypatch.setattr(trials, "train", fail(TrainingError("out of memory")))
    with pytest.raises(TrainingError, match="out of memory"):
        run_trial(plan, build_trial(plan, "none", 0, {}), {})
    assert not paths.trial_result("s", "none", 0).exists()


def test_a_trial_trains_on_the_fit_images_only_and_with_a_seed_of_its_own(
    plan: SweepPlan, monkeypatch
):
    seen = {}

    def train(train_plan, seed, images, classes, compute_accuracies, *_):
        seen.update(
            seed=seed, ids=set(images.frame["image_id"]), accuracies=compute_accuracies(None)
        )
        raise DivergedError("stop here")

    monkeypatch.setattr(trials, "train", train)
    run_trial(plan, build_trial(plan, "none", 0, {}), {})
    assert seen["seed"] not in PARAMS["seeds"]
    assert len(seen["ids"]) == 12
    assert seen["accuracies"] == {}  # no evaluation set is scored on the way
