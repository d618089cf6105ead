"""TensorBoard and Weights & Biases receive what MLflow does; no logger stops a training."""

import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from densecl.artifacts import TrainPlan
from densecl.config.params import DataParams, NetworkParams, TrainParams
from densecl.errors import DenseclError
from densecl.monitoring import loggers
from densecl.monitoring.monitor import Monitor

PLAN = TrainPlan(
    mode="none",
    network=NetworkParams(model_name="vit_tiny_patch16_224"),
    data=DataParams(),
    train=TrainParams(epochs=3, warmup_epochs=0.0),
    contrast=None,
)
FINGERPRINT = "a" * 64


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Monitor, "_call_mlflow", lambda *_: None)


def log_epochs(*epochs: int) -> None:
    with Monitor(PLAN, 0, 5, FINGERPRINT) as monitor:
        for epoch in epochs:
            row = {"epoch": epoch, "images_per_second": 10.0**epoch, "top1/imagenet": 0.25 * epoch}
            monitor.log_epoch(row | {"gradient_cosine": float("nan")})


class Recorder:
    """A logger that keeps what it is given."""

    told: ClassVar[list[object]] = []

    def __init__(self, name, fingerprint, params):
        self.told.append((name, fingerprint, params["train.epochs"], params["seed"]))

    def log_metrics(self, metrics, epoch):
        self.told.append((epoch, dict(metrics)))

    def close(self, status):
        self.told.append(status)


class Broken(Recorder):
    def log_metrics(self, metrics, epoch):
        raise OSError("no space\nleft")


def test_a_logger_gets_each_epoch_and_the_end(monkeypatch):
    monkeypatch.setitem(loggers.LOGGERS, "recorder", Recorder)
    monkeypatch.setenv(loggers.LOGGERS_ENV, " recorder,")
    monkeypatch.setattr(Recorder, "told", [])
    log_epochs(0, 1)
    with pytest.raises(KeyError), Monitor(PLAN, 0, 5, FINGERPRINT):
        raise KeyError
    first, end = ("none-0", FINGERPRINT, 3, 0), {"images_per_second": 10.0, "top1/imagenet": 0.25}
    epoch = {"images_per_second": 1.0, "top1/imagenet": 0.0}  # finite values only
    assert Recorder.told == [first, (1, epoch), (2, end), 0, first, 1]


def test_a_logger_that_fails_is_one_warning_and_the_others_go_on(monkeypatch, capsys):
    monkeypatch.setattr(loggers, "LOGGERS", {"broken": Broken, "recorder": Recorder})
    monkeypatch.setenv(loggers.LOGGERS_ENV, "broken,recorder")
    monkeypatch.setattr(Recorder, "told", [])
    log_epochs(0, 1)
    said = capsys.readouterr().err
    assert said.count("warning: Broken stopped, training continues: OSError: no space\n") == 1
    assert [entry[0] for entry in Recorder.told if isinstance(entry, tuple)][2:] == [1, 2]


def test_a_logger_that_cannot_start_stops_no_training(monkeypatch, capsys):
    """As W&B without a login."""

    class Refusing(Recorder):
        def __init__(self, *_):
            raise PermissionError("no login")

    monkeypatch.setattr(loggers, "LOGGERS", {"refusing": Refusing, "recorder": Recorder})
    monkeypatch.setenv(loggers.LOGGERS_ENV, "refusing,recorder")
    monkeypatch.setattr(Recorder, "told", [])
    log_epochs(0, 1)
    warning = "warning: Refusing stopped, training continues: PermissionError: no login"
    assert capsys.readouterr().err.count(warning) == 1
    assert [entry[0] for entry in Recorder.told if isinstance(entry, tuple)][1:] == [1, 2]


@pytest.mark.parametrize(
    ("names", "missing", "said"),
    [
        ("tensorbord", "x", r"DENSECL_LOGGERS: found 'tensorbord', expected tensorboard or wandb"),
        ("tensorboard", "torch.utils.tensorboard", r"pip install 'densecl\[tensorboard\]'"),
        ("wandb", "wandb", r"pip install 'densecl\[wandb\]'"),
    ],
)
def test_an_unknown_or_missing_logger_stops_before_training(monkeypatch, names, missing, said):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.setenv(loggers.LOGGERS_ENV, names)
    with pytest.raises(DenseclError, match=said):
        log_epochs(0)


def test_tensorboard_has_the_curves_of_a_resumed_training(monkeypatch):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv(loggers.LOGGERS_ENV, "tensorboard")
    log_epochs(0)
    log_epochs(1, 2)
    events = EventAccumulator(f"tensorboard/none-0/{FINGERPRINT}").Reload()
    assert "params/text_summary" in events.Tags()["tensors"]
    values = [(event.step, event.value) for event in events.Scalars("top1/imagenet")]
    assert values == [(1, 0.0), (2, 0.25), (3, 0.5)]


def test_weights_and_biases_keeps_an_offline_run(monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv(loggers.LOGGERS_ENV, "wandb")
    log_epochs(0, 1)
    (file,) = Path("wandb").glob("offline-run-*/*.wandb")
    assert FINGERPRINT in file.name
    patience = time.monotonic() + 30  # its service writes the file
    while b"top1/imagenet" not in file.read_bytes() and time.monotonic() < patience:
        time.sleep(0.1)
    assert b"top1/imagenet" in file.read_bytes()
