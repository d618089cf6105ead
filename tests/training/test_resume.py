"""However a training run is interrupted, it resumes to the same bits; corrupt state is not used."""

import io
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from densecl import paths
from densecl.artifacts import TrainPlan
from densecl.config.params import DenseContrastParams, TrainParams
from densecl.errors import Interrupted
from densecl.runtime.signals import SIGNAL_HANDLER
from densecl.training import checkpoint
from densecl.training.batch_scorer import BatchScorer
from densecl.training.fingerprint import compute_fingerprint
from densecl.training.step_metrics import split_steps, stack_steps
from densecl.training.train import train
from densecl.training.train_state import TrainingError
from densecl.training.trainer import Trainer
from tests.training.test_trainer import DATA, NETWORK, images, plan, run, validator, workplace  # noqa: F401 - a fixture
from tests.training.training_project import ENVIRONMENT, STEPS, prepare

needs_proc = pytest.mark.skipif(
    sys.platform != "linux", reason="needs /proc to see which processes are at work"
)
EVERYTHING = DenseContrastParams(
    queue_size=50,
    patches_per_image=6,
    dense_dim=16,
    key_encoder="momentum",
    learnable_temp=True,
    symmetric=True,
    contrastive_weight_adaptive=True,
    ramp_epochs=2.0,
    sampling_strategy="diverse",
    correspondence_filter="mutual",
)


def build_full_plan(**changed: object) -> TrainPlan:
    settings = {
        "batch_size": 8,
        "epochs": 2,
        "learning_rate": 3e-3,
        "warmup_epochs": 1.0,
        "drop_path": 0.2,
        "random_erasing": 0.5,
        "ema_decay": 0.9,
        "grad_accumulation": 2,
        "checkpoint_minutes": 1e-9,
    } | changed
    return TrainPlan(
        mode="dense", network=NETWORK, data=DATA, train=TrainParams(**settings), contrast=EVERYTHING
    )


class Killed(BaseException):
    """Handled nowhere: only what is on the disk remains, as after kill -9."""


def outcome(folder: Path) -> dict[str, bytes]:
    """Bytes of every file of a training run."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "of",
    [
        pytest.param(build_full_plan(), id="dense"),
        pytest.param(
            plan("global", epochs=2, checkpoint_minutes=1e-9), id="global", marks=pytest.mark.slow
        ),
        pytest.param(
            build_full_plan().model_copy(
                update={"data": DATA.model_copy(update={"augment_on": "device"})}
            ),
            id="augmented on the device",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_run_killed_after_every_step_ends_in_the_same_bits(workplace, monkeypatch, of):
    run(workplace, "whole", of)
    after_step, left = Trainer._end_step, []

    def killed(self):
        after_step(self)
        left.append(self.steps_done)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_step", killed)
        for _ in range(6):  # 24 images in batches of 8, twice
            with pytest.raises(Killed):
                run(workplace, "again", of)
    assert left == [1, 2, 3, 4, 5, 6]
    run(workplace, "again", of)
    assert outcome(workplace / "again") == outcome(workplace / "whole")
    assert set(outcome(workplace / "again")) == {
        "model/model.safetensors",
        "model/heads.safetensors",
        "model/config.json",
        "training/history.csv",
        "training/training.json",
        "training/matches.safetensors",
    }
    assert not any(paths.CHECKPOINTS.iterdir())


def test_step_metrics_survive_stacking():
    steps = [{"loss": torch.tensor(1.0), "gradient_norm": torch.tensor(n)} for n in (2.0, 3.0)]
    assert split_steps(stack_steps(steps)) == steps
    assert split_steps(stack_steps([])) == []
    diagnostic = steps[0] | {"gradient_cosine": torch.tensor(0.5)}
    first, second = split_steps(stack_steps([diagnostic, steps[1]]))
    assert first == diagnostic
    assert second["gradient_cosine"].isnan()


def run_until(
    place: Path, monkeypatch, step: int, of: TrainPlan, name: str = "again"
) -> list[Path]:
    """Kill a training run after `step`; its checkpoints, oldest first."""
    after_step = Trainer._end_step

    def killed(self):
        after_step(self)
        if self.steps_done == step:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_end_step", killed)
        with pytest.raises(Killed):
            run(place, name, of)
    return sorted(paths.CHECKPOINTS.glob("*/step-*.pt"))


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def build_pickle_bomb() -> bytes:
    buffer = io.BytesIO()
    torch.save({"compatibility": {}, "steps_done": 9, "model": Bomb()}, buffer)
    return buffer.getvalue()


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d[: len(d) // 2],
        lambda d: b"",
        flipped,
        lambda d: build_pickle_bomb(),
        lambda d: pickle.dumps(Bomb()),
    ],
    ids=["truncated", "empty", "one bit", "pickle in a zip", "pickle"],
)
def test_corrupt_checkpoint_falls_back_to_the_previous_one(workplace, monkeypatch, capfd, damage):
    of = plan("none", epochs=2, checkpoint_minutes=1e-9)
    run(workplace, "whole", of)
    before, last = run_until(workplace, monkeypatch, 4, of)
    assert (before.name, last.name) == ("step-000000003.pt", "step-000000004.pt")
    last.write_bytes(damage(last.read_bytes()))
    capfd.readouterr()
    run(workplace, "again", of)
    said = capfd.readouterr().err
    assert f"WARNING: {last}: damaged or no checkpoint" in said
    assert f"resumes after step 3 of 6 from {before}" in said
    assert not Path("exploded").exists()
    assert outcome(workplace / "again") == outcome(workplace / "whole")


def test_checkpoints_of_another_training_run_are_untouched(workplace, monkeypatch):
    of = plan("none", epochs=2, checkpoint_minutes=1e-9)
    paths_before = run_until(workplace, monkeypatch, 2, of)
    run(workplace, "other", plan("none", epochs=1, warmup_epochs=0.0))
    assert all(path.exists() for path in paths_before)


def test_execution_settings_do_not_change_the_fingerprint():
    one, other = plan("none"), plan("none", checkpoint_minutes=3.0, processes=2)
    assert compute_fingerprint(one, 0, b"") == compute_fingerprint(other, 0, b"")
    assert compute_fingerprint(one, 0, b"") != compute_fingerprint(plan("none", epochs=7), 0, b"")
    on_device = one.model_copy(update={"data": DATA.model_copy(update={"augment_on": "device"})})
    assert compute_fingerprint(one, 0, b"") != compute_fingerprint(on_device, 0, b"")
    assert len({compute_fingerprint(one, s, d) for s, d in ((0, b""), (1, b""), (0, b"x"))}) == 3


@pytest.mark.filterwarnings("ignore:contrast.queue_size")
def test_resume_accepts_a_copied_checkpoint_and_rejects_incompatible_ones(
    workplace, monkeypatch, tmp_path
):
    of = plan("none", epochs=2, checkpoint_minutes=1e-9)
    run(workplace, "whole", of)
    copied = tmp_path / "copied.pt"
    copied.write_bytes(run_until(workplace, monkeypatch, 4, of)[-1].read_bytes())

    def resumed(plan_: TrainPlan, path: Path, root: str = "train") -> None:
        train(
            plan_,
            0,
            images(workplace / root),
            sorted(folder.name for folder in (workplace / root).iterdir()),
            validator(workplace),
            workplace / "r/model",
            workplace / "r/training",
            path,
        )

    for name in ("a", "b"):
        (workplace / "fewer" / f"n1000000{1 + (name == 'b')}").mkdir(parents=True)
        (workplace / "fewer" / f"n1000000{1 + (name == 'b')}" / "x.JPEG").write_bytes(
            next((workplace / "train/n10000001").iterdir()).read_bytes()
        )
    small = NETWORK.model_copy(update={"model_args": NETWORK.model_args | {"depth": 3}})
    truncated = tmp_path / "truncated.pt"
    truncated.write_bytes(copied.read_bytes()[:-100])
    harmful = tmp_path / "harmful.pt"
    harmful.write_bytes(build_pickle_bomb())
    for bad, path, root, said in (
        (
            of.model_copy(update={"network": small}),
            copied,
            "train",
            "model_args: found .*'depth': 2.*expected .*'depth': 3",
        ),
        (
            plan("none", epochs=2, batch_size=1, warmup_epochs=0.0),
            copied,
            "fewer",
            "classes: found .*n10000003.*expected .*n10000002",
        ),
        (plan("global", epochs=2), copied, "train", "mode: found none, expected global"),
        (plan("none", epochs=3), copied, "train", "fingerprint: found [0-9a-f]{16}, expected"),
        (of, truncated, "train", "truncated.pt: damaged or no checkpoint"),
        (of, harmful, "train", "harmful.pt: damaged or no checkpoint"),
        (of, tmp_path / "nothing.pt", "train", "nothing.pt: No such file"),
    ):
        with pytest.raises(checkpoint.CheckpointError, match=said) as caught:
            resumed(bad, path, root)
        assert "\n" not in str(caught.value)
    assert not Path("exploded").exists()
    resumed(of, copied)
    assert outcome(workplace / "r") == outcome(workplace / "whole")


@pytest.mark.slow
def test_locked_checkpoints_name_their_holder(tmp_path):
    with checkpoint.lock_checkpoints(tmp_path / "f") as kept:
        code = f"from pathlib import Path\nfrom densecl.training import checkpoint\nwith checkpoint.lock_checkpoints(Path({str(kept.folder)!r}), 0.3): pass"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"RetryLater: {kept.folder}/lock: held by process {os.getpid()} on " in done.stderr
        assert " since 2" in done.stderr
        kept.remove_all()
    with checkpoint.lock_checkpoints(tmp_path / "f", 0.0) as kept:  # the lock ended with its holder
        assert kept.load_latest(print) == (None, "")


def test_signal_waits_for_the_step_and_saves_a_checkpoint(workplace, monkeypatch):
    of = plan("none", epochs=2)
    run(workplace, "whole", of)
    take = Trainer._run_step

    def signalled(self, step, batch, look):
        if step == 1:
            SIGNAL_HANDLER._handle_signal(signal.SIGTERM, None)  # arrives inside the step
        return take(self, step, batch, look)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_run_step", signalled)
        patch.setattr(SIGNAL_HANDLER, "received", 0)
        with pytest.raises(
            Interrupted,
            match=r"SIGTERM: stopped after step 2 of 6; the last good checkpoint is .*step-000000002.pt",
        ):
            run(workplace, "again", of)
    run(workplace, "again", of)
    assert outcome(workplace / "again") == outcome(workplace / "whole")


def test_non_finite_loss_names_step_checkpoint_and_params(workplace, monkeypatch):
    take = Trainer._run_step

    def diverges(self, step, batch, look):
        seen = take(self, step, batch, look)
        return seen | {"loss": seen["loss"] * torch.inf} if step >= 4 else seen

    monkeypatch.setattr(Trainer, "_run_step", diverges)
    said = r"loss is inf .* at epoch 1, step 1; the last good checkpoint is .*step-000000003.pt; lower train.learning_rate"
    with pytest.raises(TrainingError, match=said):
        run(workplace, "bad", plan("none", checkpoint_minutes=30.0))


def test_out_of_memory_names_params_and_checkpoint(workplace, monkeypatch):
    score = BatchScorer.forward

    def cramped(self, batch, diagnostics):
        if len(batch.labels) > 3:
            torch.empty(2**62, dtype=torch.uint8)  # refused by the allocator itself
        return score(self, batch, diagnostics)

    monkeypatch.setattr(BatchScorer, "forward", cramped)
    said = r"out of memory with 8 images at a time .*double train.grad_accumulation \(now 1\), halve train.batch_size \(now 8\).*no checkpoint yet"
    with pytest.raises(TrainingError, match=said):
        run(workplace, "big", plan("none"))


# --- the real command ---


@pytest.fixture
def staged(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return prepare(tmp_path, checkpoint_minutes=1e-9)


def start_command(place: Path, *command: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start a command in a folder, in a session of its own; `read_stderr` returns its stderr."""
    stderr = place / f"stderr-{len(list(place.glob('stderr-*')))}"
    with stderr.open("wb") as file:
        process = subprocess.Popen(
            command,
            cwd=place,
            env=ENVIRONMENT | {"DENSECL_WORKERS": "1"} | variables,
            stderr=file,
            start_new_session=True,
        )
    process.read_stderr = stderr.read_text
    return process


def list_checkpoints(place: Path) -> list[Path]:
    return sorted(place.glob("checkpoints/*/step-*.pt"))


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def list_processes(place: Path) -> dict[int, str]:
    """Command lines of the processes running in a folder, without zombies."""
    found = {}
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if each.joinpath("cwd").resolve() == place and (
                line := each.joinpath("cmdline").read_bytes()
            ):
                found[int(each.name)] = line.replace(b"\0", b" ").decode()
        except OSError:
            continue
    return {process: line for process, line in found.items() if process != os.getpid()}


@needs_proc
@pytest.mark.slow
def test_the_stage_survives_kill_9_and_sigterm(staged):
    command = [*STEPS, "train", "dense", "0"]
    whole = start_command(staged, *command)
    assert whole.wait() == 0, whole.read_stderr()
    reference = {p.name: p.read_bytes() for p in (staged / "models/dense/seed-0").iterdir()}
    history = (staged / "reports/training/dense-0/history.csv").read_bytes()

    killed = start_command(staged, *command)
    wait_until(lambda: list_checkpoints(staged))
    time.sleep(random.uniform(0, 0.3))  # at a random moment
    killed.kill()
    killed.wait()
    wait_until(lambda: not list_processes(staged), 5)  # nor its loader's worker

    asked = start_command(staged, *command)
    before = list_checkpoints(staged)
    wait_until(lambda: list_checkpoints(staged) != before or asked.poll() is not None)
    os.killpg(asked.pid, signal.SIGTERM)  # to its workers too, as by `timeout` or Slurm
    begun = time.monotonic()
    assert asked.wait() in {0, 75}  # 0: it had just finished
    assert time.monotonic() - begun < 10
    said = asked.read_stderr()
    if asked.returncode:
        assert said.splitlines()[-1].startswith("error: SIGTERM: stopped after step ")
        done = start_command(staged, *command)
        assert done.wait() == 0
        assert "resumes after step" in done.read_stderr()
    assert {p.name: p.read_bytes() for p in (staged / "models/dense/seed-0").iterdir()} == reference
    assert (staged / "reports/training/dense-0/history.csv").read_bytes() == history
    assert not any((staged / "checkpoints").iterdir())


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("shell", [False, True], ids=["child", "behind a shell"])
def test_a_stage_ends_with_the_process_that_started_it(staged, shell):
    inner = " ".join([*STEPS, "train", "none", "0"])
    call = (
        f"subprocess.run(['sh', '-c', {inner + '; true'!r}])"
        if shell
        else f"subprocess.run({inner.split()!r})"
    )
    parent = start_command(staged, sys.executable, "-c", f"import subprocess; {call}")
    wait_until(lambda: list_checkpoints(staged))
    parent.kill()
    parent.wait()
    wait_until(
        lambda: (
            not [line for line in list_processes(staged).values() if not line.startswith("sh -c")]
        ),
        10,
    )
