"""Parts of a sweep without a training: shorter trials, how failures are told, what is refused."""

import hashlib
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import psutil
import pytest
import yaml

from densecl import paths
from densecl.artifacts import write_json
from densecl.config.base import Mode
from densecl.config.params import DatasetParams, load_params, parse_params
from densecl.datasets.manifests.layouts.sources import list_source
from densecl.datasets.manifests.scan import scan_listing
from densecl.datasets.pack import pack_images
from densecl.datasets.storage.image_root import read_file
from densecl.datasets.storage.manifest import read_manifest, write_manifest
from densecl.errors import DenseclError, RetryLater
from densecl.training.train_state import DivergedError
from densecl.tuning import trial as trials
from densecl.tuning.records import SweepPlan, TrialResult
from densecl.tuning.trial import run_trial
from pipelines import __main__ as command
from pipelines.engines import run as engines
from pipelines.engines.cluster_jobs import get_job_file
from pipelines.runner import _locate_roots
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import ClusterJob
from pipelines.studies.sweep import begin, machines, run as sweep
from pipelines.studies.sweep.begin import build_trial
from pipelines.studies.sweep.machines import run_trials
from pipelines.studies.sweep.preset import build_record, write_preset
from pipelines.studies.sweep.queue import ClaimedTrial, TrialQueue
from pipelines.studies.sweep.results import ModeTrials
from pipelines.studies.sweep.workers import TrialProcesses, explain_failure
from tests.conftest import WNIDS, draw_set
from tests.pipelines.project_factory import ROOT
from tests.training.training_project import ENVIRONMENT, PARAMS


def make_plan(**sweep: object) -> SweepPlan:
    params = parse_params({**PARAMS, "sweep": sweep}, "p")
    return SweepPlan(
        name="s",
        sweep=params.sweep,
        modes=("dense", "global", "none"),
        settings=params.mode_settings.model_copy(update={"variants": {}}),
        network=params.network,
        data=params.data,
        root="imagenet-train",
        protocol="folder",
        preprocess=None,
        classes=("a", "b"),
    )


def make_result(
    index: int, top1: float, loss: float | None = 1.0, failure: str = ""
) -> TrialResult:
    return TrialResult(
        mode="none",
        index=index,
        values={},
        top1_select=top1,
        loss_select=loss,
        top1_confirm=top1,
        loss_confirm=loss,
        images=(8, 1, 1),
        failure=failure,
        code="",
    )


def test_a_shorter_trial_has_its_warm_up_in_proportion():
    trial = build_trial(make_plan(epochs=2), "dense", 0, {})
    assert (trial.train.train.epochs, trial.train.train.warmup_epochs) == (2, 0.5)
    assert trial.train.contrast.ramp_epochs == 5.0
    assert trial.train.base == "dense"


@pytest.mark.slow
def test_the_queue_gives_each_trial_once_and_each_mode_as_many(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = make_plan()
    queue = TrialQueue(plan, 3)
    claims = [queue.claim(False) for _ in range(9)]
    assert queue.claim(False) is None
    assert {(claim.mode, claim.index) for claim in claims} == {
        (mode, index) for mode in plan.modes for index in range(3)
    }
    assert [claim.index for claim in claims] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    # A process that was killed with all of them running: the next one repeats them, with the same
    # values, whatever their order.
    again = TrialQueue(plan, 3)
    repeated = [again.claim(False) for _ in range(9)]
    assert {(c.mode, c.index): c.values for c in repeated} == {
        (c.mode, c.index): c.values for c in claims
    }
    assert again.claim(False) is None


@pytest.mark.slow
def test_trials_of_another_machine_are_left_to_it_until_they_are_taken_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = TrialQueue(make_plan(), 2)
    theirs.worker = "elsewhere:/project"
    claims = [theirs.claim(False) for _ in range(5)]
    ours = TrialQueue(make_plan(), 2)
    assert ours.claim(True) == ClaimedTrial("none", 1, ANY)  # what waits, first
    assert ours.claim(False) is None
    assert "dense 0 on elsewhere:/project" in ours.list_others()
    assert ours.claim(True) == claims[0]
    # Both live, and finish it.
    result = make_result(0, 0.5).model_copy(update={"mode": "dense"})
    theirs.complete(result)
    ours.complete(result)
    assert ours.studies["dense"].trials[0].value == 0.5


@pytest.mark.slow
def test_a_larger_budget_adds_trials_to_every_mode(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TrialQueue(make_plan(), 2)
    queue = TrialQueue(make_plan(), 4)
    assert {len(study.trials) for study in queue.studies.values()} == {4}
    with pytest.raises(DenseclError, match="has 4 trials of each mode already"):
        TrialQueue(make_plan(), 3)


def test_a_database_that_cannot_be_used_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DenseclError, match=r"check sweep\.storage") as raised:
        TrialQueue(make_plan(storage="sqlite:////no/such/folder/trials.db"), 2)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.slow
def test_tpe_learns_from_the_trials_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    queue = TrialQueue(make_plan(sampler="tpe"), 30)
    rates = []
    while (claim := queue.claim(False)) is not None:
        rate = claim.values.get("train.learning_rate", 3e-3)
        queue.complete(
            make_result(claim.index, 1.0 if rate > 1e-2 else 0.1).model_copy(
                update={"mode": claim.mode}
            )
        )
        rates.append((claim.mode, rate))
    own = [rate for mode, rate in rates if mode == "none"]
    assert sum(rate > 1e-2 for rate in own[-10:]) > sum(rate > 1e-2 for rate in own[:10])


def test_the_best_is_the_highest_top1_then_the_lowest_loss_then_the_first():
    results = (
        make_result(0, 0.5, 0.9),
        make_result(1, 0.6, 1.5),
        make_result(2, 0.6, 1.2),
        make_result(3, 0.6, 1.2),
        make_result(4, 0.0, None, "loss is nan"),
    )
    trials = ModeTrials("none", results, None, {})
    assert trials.best.index == 2
    assert trials.best_so_far == [0.5, 0.6, 0.6, 0.6, 0.6]
    assert [found.trials for found in trials.expected_maxima] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (2, DenseclError, "trial 4 of dense: out of memory"),
        (75, RetryLater, "trial 4 of dense: out of memory"),
        (-9, RetryLater, "its process was killed"),
    ],
)
def test_why_a_trial_failed_is_one_line(tmp_path: Path, status: int, kind: type, text: str):
    (tmp_path / "errors").write_text("error: out of memory\n")
    error = explain_failure(ClaimedTrial("dense", 3, {}), status, tmp_path)
    assert type(error) is kind
    assert text in str(error)


def make_trials(mode: Mode, values: dict[str, Any]) -> ModeTrials:
    """Two trials, of which the second is the best."""
    results = (make_result(0, 0.1), make_result(1, 0.9).model_copy(update={"values": values}))
    return ModeTrials(mode, results, None, {})


def test_the_record_has_the_settings_of_the_best_trials_in_effect():
    """Geometric matches have no filter, whatever filter the trial drew."""
    drawn = {
        "contrast.correspondence_features": "geometric",
        "contrast.correspondence_filter": "mutual",
    }
    modes = [make_trials("dense", drawn), make_trials("none", {"train.learning_rate": 0.5})]
    record = build_record(make_plan(), modes)
    assert record.values["dense"] == {**drawn, "contrast.correspondence_filter": "none"}
    dense, none = record.get_settings("dense"), record.get_settings("none")
    assert dense["contrast.correspondence_filter"] == "none"
    assert (dense["train.learning_rate"], none["train.learning_rate"]) == (3e-3, 0.5)
    assert dense["train.batch_size"] == none["train.batch_size"] == 8
    assert dense["network.model_args.depth"] == 2
    assert "train.batch_size" in record.settings["all"]  # once


def test_a_preset_can_be_read_though_a_factor_leads_out_of_the_bounds_now(tmp_path, monkeypatch):
    """0.4 as the trials of 0.15 times 4 may choose, times 4."""
    monkeypatch.chdir(tmp_path)
    sweep = {"space": {"train": {"label_smoothing": {"factor": 4.0}}}}
    train = {**PARAMS["train"], "label_smoothing": 0.15}
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump({**PARAMS, "train": train, "sweep": sweep})
    )
    preset = write_preset(make_plan(), [make_trials("none", {"train.label_smoothing": 0.4})])
    params = load_params(preset)
    assert params.mode_settings.resolve_train("none").label_smoothing == 0.4
    assert params.tuning == build_record(
        make_plan(), [make_trials("none", {"train.label_smoothing": 0.4})]
    )


def test_params_that_were_edited_during_the_sweep_enter_no_preset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw_set(tmp_path / "imagenet-train", 6)
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(PARAMS))

    def edit(*_: object) -> None:
        params.write_text(yaml.safe_dump({**PARAMS, "train": {**PARAMS["train"], "epochs": 9}}))

    monkeypatch.setattr(machines, "run_trials", edit)
    monkeypatch.setattr(TrialQueue, "list_others", lambda _: [])
    monkeypatch.setattr(SIGNAL_FORWARDER, "install_handlers", lambda: None)
    assert command.main(["sweep", "--budget", "2", "--name", "s"]) == 2
    assert "settings.train.epochs is 9, but its trials began with 4" in capsys.readouterr().err
    assert not (tmp_path / "presets").exists()


def test_trials_that_another_engine_has_are_not_begun_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan, params = make_plan(), parse_params(PARAMS, "p")
    for name in ("trial@other-none-0", "trial@s-1-none-0", "train@none-0", "trial@s-none-0"):
        assert isinstance(sweep.open_machines(params, plan, 1, None), TrialProcesses)
        job = ClusterJob(id="7", engine="slurm", stages=(name,), key="k", log="l", submitted=0.0)
        write_json(get_job_file(job), job)
    with pytest.raises(
        DenseclError, match=r"none-0: found slurm job 7, .* go on with --engine slu"
    ):
        sweep.open_machines(params, plan, 1, None)


def test_a_signal_while_a_trial_starts_is_an_interruption(tmp_path, monkeypatch):
    """It ends the fork server, so that the start fails."""
    monkeypatch.chdir(tmp_path)
    plan = make_plan()
    processes = TrialProcesses(plan.name, 1)
    processes.processes = SimpleNamespace(Process=BrokenProcess)
    with pytest.raises(EOFError):
        run_trials(plan, TrialQueue(plan, 2), processes, take_over=False)
    monkeypatch.setattr(SIGNAL_FORWARDER, "received", 0)  # again what it was, after the test
    monkeypatch.setattr(BrokenProcess, "signal_number", signal.SIGTERM)
    with pytest.raises(RetryLater, match="SIGTERM"):
        run_trials(plan, TrialQueue(plan, 2), processes, take_over=False)


class BrokenProcess:
    signal_number = 0

    def __init__(self, **_: object) -> None:
        pass

    def start(self) -> None:
        SIGNAL_FORWARDER.received = self.signal_number
        raise EOFError


START_AND_WAIT = """
import multiprocessing, time
from tests.pipelines.sweep_child import wait_for_the_end

process = multiprocessing.get_context("forkserver").Process(target=wait_for_the_end)
process.start()
print(process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_trial_ends_with_a_sweep_that_was_killed():
    """Its parent is the fork server, which lives as long as it."""
    command = [sys.executable, "-c", START_AND_WAIT]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as sweep:
        assert sweep.stdout is not None
        trial = psutil.Process(int(sweep.stdout.readline()))
        assert sweep.stdout.readline() == "watching\n"
        sweep.kill()
    trial.wait(timeout=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--budget", "1"], "--budget: found 1, expected at least 2 trials"),
        (["--budget", "3", "--name", "A b"], "--name: found 'A b'"),
    ],
)
def test_wrong_options_are_one_line(options: list[str], message: str, capsys):
    assert command.main(["sweep", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_sweep_reads_shards_in_a_store(tmp_path, monkeypatch):
    """It lists them itself, or finds them unchanged since prepare listed them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(begin, "check_network", lambda _: None)
    folders = draw_set(tmp_path / "folders", 3)
    local = DatasetParams(root=str(folders), tracked_by=str(folders))
    frame = scan_listing("imagenet-train", folders, list_source(local, WNIDS), WNIDS, 1).frame
    (tmp_path / "there").mkdir()
    pack_images("imagenet-train", frame, WNIDS, folders, tmp_path / "there", 4000)
    source = {"root": f"file://{tmp_path}/there", "tracked_by": "i.json", "layout": "webdataset"}
    values = {**PARAMS, "datasets": {**PARAMS["datasets"], "imagenet-train": source}}
    params = parse_params({**values, "sweep": {"held_back": 0.4}}, "p")
    assert _locate_roots(params).keys() == params.datasets.keys() - {"imagenet-train"}  # no index
    plan = begin.begin_sweep(params, "s")
    found = read_manifest(paths.sweep_manifest("s"))
    assert found["sha256"].tolist() == frame["sha256"].tolist()
    assert _locate_roots(params)["imagenet-train"] == plan.images
    seen = []

    def train(train_plan, seed, images, *_):
        seen.extend(read_file(images.root / path) for path in images.frame["path"])
        raise DivergedError("stop here")

    monkeypatch.setattr(trials, "train", train)
    run_trial(plan, build_trial(plan, "none", 0, {}), {})
    digests = {hashlib.sha256(content).hexdigest() for content in seen}
    assert seen
    assert digests < set(frame["sha256"])
    write_manifest(found, paths.manifest_file("imagenet-train"))
    assert begin.begin_sweep(params, "later").images == plan.images


def test_a_sweep_in_a_fresh_clone_draws_its_images_first(tmp_path, monkeypatch):
    """And reads a folder of the user's as it is."""
    steps = list[object]()

    def begin_sweep(params, name):
        steps.append(name)
        raise RetryLater("begun")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(begin, "begin_sweep", begin_sweep)
    monkeypatch.setattr(engines, "update_stages", lambda kinds, *_: steps.append(kinds))
    Path("params.yaml").write_text((ROOT / "tests/small.yaml").read_text())
    for _ in range(2):
        with pytest.raises(RetryLater, match="begun"):
            sweep.main(2, "fresh", None, None, take_over=False, dry_run=False)
        Path("data/rendered/imagenet/train").mkdir(parents=True, exist_ok=True)
    assert steps == [("render",), "fresh", "fresh"]
