"""What varies with the machine is found in MLflow again, by the fingerprint of the training run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from densecl.artifacts import TrainPlan
from densecl.config.params import DataParams, NetworkParams, TrainParams
from densecl.monitoring.monitor import Monitor
from densecl.monitoring.training_records import NO_RECORD, TrainingRecord, read_training_records

PLAN = TrainPlan(
    mode="none",
    network=NetworkParams(model_name="vit_tiny_patch16_224"),
    data=DataParams(),
    train=TrainParams(epochs=3, warmup_epochs=0.0),
    contrast=None,
)


class Killed(BaseException):
    """As by kill -9."""


def log_epochs(monitor: Monitor, *epochs: int) -> None:
    for epoch in epochs:
        row = {"epoch": epoch, "images_per_second": 10.0**epoch, "peak_memory_bytes": 5.0 + epoch}
        monitor.log_epoch(row)


def test_an_interrupted_run_is_one_record(project):
    file = project / "run_id"
    killed = pytest.raises(Killed, match="as by")
    with killed, Monitor(PLAN, 0, 5, "aaaa", file) as monitor:
        log_epochs(monitor, 0, 1)
        raise Killed("as by kill -9")
    assert read_training_records(["aaaa"]) == ({}, NO_RECORD)  # not finished
    with Monitor(PLAN, 0, 5, "aaaa", file) as monitor:
        log_epochs(monitor, 1, 2)  # epoch 1 again, as after a checkpoint before it
        monitor.log_duration(61.5, "a card")
    epochs = {"images_per_second": [1.0, 10.0, 100.0], "peak_memory_bytes": [5.0, 6.0, 7.0]}
    record = TrainingRecord(61.5, "a card", epochs)
    assert read_training_records(["aaaa", "bbbb"]).by_fingerprint == {"aaaa": record}
    assert (record.images_per_second, record.peak_memory_bytes) == (10.0, 7)


def test_the_latest_finished_run_counts(project):
    for seconds in (10.0, 20.0):
        with Monitor(PLAN, 0, 5, "aaaa") as monitor:
            log_epochs(monitor, 0)
            monitor.log_duration(seconds, "")
    with Monitor(PLAN, 0, 5, "aaaa") as monitor:
        log_epochs(monitor, 0)
    assert read_training_records(["aaaa"]).by_fingerprint["aaaa"].wall_seconds == 20.0


def test_a_run_without_epochs_is_no_record(project):
    """Of a training that lost its store and was resumed after its last epoch."""
    with Monitor(PLAN, 0, 5, "aaaa") as monitor:
        monitor.log_duration(10.0, "")
    assert read_training_records(["aaaa"]) == ({}, NO_RECORD)


START_AT_ONCE = """
import sys
from tests.pipelines.test_training_records import PLAN, Monitor

with Monitor(PLAN, int(sys.argv[1]), 5, "fingerprint" + sys.argv[1]) as monitor:
    monitor.log_epoch({"epoch": 0, "images_per_second": 10.0, "peak_memory_bytes": 5.0})
    monitor.log_duration(1.0, "")
"""


@pytest.mark.slow
def test_trainings_that_start_at_once_in_a_new_project_are_all_recorded(tmp_path, monkeypatch):
    """MLflow itself loses some: two processes that create its database break each other's tables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    started = [
        subprocess.Popen([sys.executable, "-c", START_AT_ONCE, str(seed)], env=environment)
        for seed in range(3)
    ]
    assert [process.wait() for process in started] == [0, 0, 0]
    found = read_training_records([f"fingerprint{seed}" for seed in range(3)]).by_fingerprint
    assert len(found) == 3


def test_a_store_that_cannot_be_read_is_a_reason(project, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project}/torn.db")
    (project / "torn.db").write_bytes(b"no database " * 1000)
    records, reason = read_training_records(["aaaa"])
    assert records == {}
    assert reason.startswith("MLflow could not be read: ")
    assert "\n" not in reason


def test_without_a_terminal_progress_is_a_line_per_minute_with_the_time_left(
    project, monkeypatch, capsys
):
    clock = {"now": 0.0}
    monkeypatch.setattr("densecl.monitoring.monitor.time.monotonic", lambda: clock["now"])
    with Monitor(PLAN, 0, 1000, "aaaa") as monitor:
        for step in range(1, 501):  # of 3,000; a second each
            clock["now"] = float(step)
            monitor.update_progress(0, step, 64.0, {"classification_loss": torch.tensor(2.0)})
    lines = [line for line in capsys.readouterr().err.splitlines() if "min left" in line]
    assert len(lines) == 8  # after 60, 120, ... 480 s
    assert lines[0].startswith("none-0: epoch 1/3 64 images/s classification 2.000")
    assert lines[0].endswith("6 % of the epoch, 49 min left")
    assert lines[-1].endswith("48 % of the epoch, 42 min left")
