"""A training that is killed in an epoch and resumed ends in the bits of one that ran through."""

import io
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.loader import draw_photographs
from benchmarks.gpu.step_rates import skip_compiling_on_cpu
from benchmarks.measure import BenchmarkRow
from benchmarks.steps import MODES, StepSetup
from densecl.artifacts import TrainPlan
from densecl.config.params import DataParams, Mode

CLASSES = [f"n{number:08d}" for number in range(12)]
IMAGES_PER_EPOCH, EPOCHS, KILLED_AFTER = 8, 2, 3  # batches, epochs, steps


class Killed(Exception):
    """The training ends here, and only its checkpoint remains."""


def build_plan(setup: StepSetup, mode: Mode) -> TrainPlan:
    """Two short epochs of a mode; every step is saved."""
    train = setup.train.model_copy(
        update={
            "batch_size": setup.batch,
            "epochs": EPOCHS,
            "warmup_epochs": 1.0,
            "drop_path": 0.1,
            "ema_decay": 0.9,
            "checkpoint_minutes": 1e-9,
        }
    )
    contrast = MODES[mode]
    if contrast is not None:
        contrast = contrast.model_copy(update={"queue_size": setup.batch})
    return TrainPlan(
        mode=mode,
        network=setup.network,
        data=DataParams(augment_on="device"),
        train=train,
        contrast=contrast,
    )


def run_training(
    plan: TrainPlan, frame: Any, folder: Path, resume: bytes | None = None, kill: bool = False
) -> Any:
    """The state at the end, or with `kill` the checkpoint after KILLED_AFTER steps as bytes."""
    from densecl.monitoring.monitor import Monitor
    from densecl.training.checkpoint import load_state
    from densecl.training.train_state import StateSaver, collect_state
    from densecl.training.trainer import Trainer, TrainingSpec

    saved = io.BytesIO()

    class KillingSaver(StateSaver):
        """Keeps one checkpoint in memory, and ends the run there."""

        def save(self) -> None:
            if kill and self.trainer.steps_done == KILLED_AFTER:
                torch.save(collect_state(self.trainer), saved)
                raise Killed

    trainer = Trainer(TrainingSpec(plan, 0, frame, folder, CLASSES, "benchmark", lambda _: {}))
    monitor = Monitor(plan, 0, trainer.steps_per_epoch, "benchmark")
    monitor.mlflow_enabled, monitor.console.quiet = False, True
    saver = KillingSaver(trainer, None, monitor)
    if resume is not None:
        saver.restore(load_state(resume, "checkpoint in memory"), "checkpoint in memory")
    try:
        trainer.fit(saver, monitor)
    except Killed:
        return saved.getvalue()
    return collect_state(trainer)


def list_tensors(state: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a state by name: weights, queue, EMA, moments, generator, metrics."""
    if isinstance(state, torch.Tensor):
        return {name: state}
    if not isinstance(state, dict):
        return {}
    found: dict[str, torch.Tensor] = {}
    for key, part in state.items():
        found |= list_tensors(part, f"{name}.{key}".lstrip("."))
    return found


def measure_resume(setup: StepSetup, mode: Mode) -> list[BenchmarkRow]:
    """Tensors of the final state that differ in any bit."""
    plan = build_plan(setup, mode)
    with tempfile.TemporaryDirectory() as name, skip_compiling_on_cpu():
        folder = Path(name)
        frame = draw_photographs(folder, setup.batch * IMAGES_PER_EPOCH, 64)
        whole = list_tensors(run_training(plan, frame, folder))
        checkpoint = run_training(plan, frame, folder, kill=True)
        resumed = list_tensors(run_training(plan, frame, folder, checkpoint))
    differing = [name for name in whole if not torch.equal(whole[name], resumed[name])]
    measure = (
        f"tensors whose bits differ after a kill at step {KILLED_AFTER} of "
        f"{EPOCHS * IMAGES_PER_EPOCH}, {mode}, {setup.setting}"
    )
    first = f" ({differing[0]} ...)" if differing else ""
    cells = f"{len(differing)}{first}", f"{len(whole)} tensors", "-", "0"
    raw = {"differing": [float(len(differing))], "tensors": [float(len(whole))]}
    return [BenchmarkRow("BITS", measure, *cells, raw)]
