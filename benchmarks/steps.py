"""Training steps of the modes and of a bare timm loop, on one batch in memory."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F

from benchmarks.measure import (
    BenchmarkRow,
    Call,
    make_memory_row,
    make_time_row,
    measure_alternating,
    measure_peak_memory,
)
from densecl.config.params import (
    DenseContrastParams,
    GlobalContrastParams,
    NetworkParams,
    TrainParams,
)
from densecl.contrast import build_objective
from densecl.cost.steps import fill_memory, step_one_view
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import normalise_images, resolve_preprocessing
from densecl.network.vit import build_model
from densecl.runtime.hardware import get_device
from densecl.training.step import TrainStep

CLASSES = 1000
# With the defaults of the method.
MODES = {"dense": DenseContrastParams(), "global": GlobalContrastParams(), "none": None}


@dataclass(frozen=True)
class StepSetup:
    """What is timed; targets: dense / none in time and in memory, global / none, none / bare."""

    model: str = "vit_tiny_patch16_224"
    model_args: dict[str, Any] = field(default_factory=dict)
    batch: int = 16
    queue: int = 65536
    train: TrainParams = field(default_factory=TrainParams)
    rounds: int = 9
    targets: tuple[str, str, str, str] = ("≤ 1.20", "≤ 1.15", "≤ 1.03", "≤ 1.05")

    @property
    def setting(self) -> str:
        """Model, batch and what differs from the defaults, for the row's name."""
        compiled = ["compiled"] if self.train.compile else []
        return ", ".join([self.model, f"batch {self.batch}", self.train.precision, *compiled])

    @property
    def network(self) -> NetworkParams:
        return NetworkParams(model_name=self.model, model_args=self.model_args)


def build_batch(setup: StepSetup) -> ViewBatch:
    """Random views of uncropped images, on the device."""
    generator, size = torch.Generator().manual_seed(0), setup.model_args.get("img_size", 224)
    shape = (2, setup.batch, 3, size, size)
    views = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    rows = torch.arange(setup.batch)
    full_crop = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]).expand(setup.batch, 5)
    columns = (*views, rows, rows, full_crop, full_crop)
    return ViewBatch(*(column.to(get_device()) for column in columns))


def build_train_step(setup: StepSetup, mode: str) -> TrainStep:
    """A training step of a mode, with a full memory queue of other images."""
    model = build_model(setup.network, CLASSES, 0).to(get_device())
    objective = build_objective(
        MODES[mode], model, setup.queue, 0, torch.Generator().manual_seed(0)
    ).to(get_device())
    fill_memory(objective, CLASSES)
    return TrainStep(model.train(), objective, resolve_preprocessing(model), setup.train)


def build_step(setup: StepSetup, mode: str, diagnostics: bool = False) -> Call:
    """A step of a mode; with `diagnostics`, as every tenth one is."""
    train_step = build_train_step(setup, mode)
    weight = train_step.objective.lambda_weight
    return partial(train_step, build_batch(setup), weight, 0, diagnostics=diagnostics)


def build_one_view_step(setup: StepSetup) -> Call:
    """Plain classification on one view."""
    return partial(step_one_view, build_train_step(setup, "none"), build_batch(setup))


def build_bare_step(setup: StepSetup) -> Call:
    """The same two views in a loop of ten lines on timm and torch."""
    model = timm.create_model(setup.model, num_classes=CLASSES, **setup.model_args)
    model = model.train().to(get_device())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    batch = build_batch(setup)
    preprocessing = resolve_preprocessing(build_model(setup.network, CLASSES, 0))
    use_bf16 = setup.train.precision == "bf16"

    def run_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(get_device().type, torch.bfloat16, enabled=use_bf16):
            logits = model(normalise_images(torch.cat([batch.view1, batch.view2]), preprocessing))
        F.cross_entropy(logits.float(), batch.labels.repeat(2)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return run_step


def build_three_steps(setup: StepSetup, mode: str) -> Call:
    """Three steps, after which the optimizer has its state and memory no longer grows."""
    run_step = build_one_view_step(setup) if mode == "one view" else build_step(setup, mode)
    return lambda: [run_step() for _ in range(3)]


def measure_steps(setup: StepSetup) -> list[BenchmarkRow]:
    """Time and memory of the modes, of a one-view step and of a bare timm loop."""
    calls = {mode: build_step(setup, mode) for mode in MODES}
    calls |= {
        "one view": build_one_view_step(setup),
        "bare": build_bare_step(setup),
        "diagnostic": build_step(setup, "dense", diagnostics=True),
    }
    times = measure_alternating(calls, setup.rounds)
    memory = {
        mode: measure_peak_memory(build_three_steps, setup, mode) for mode in (*MODES, "one view")
    }
    dense_target, dense_memory_target, global_target, none_target = setup.targets
    setting = setup.setting
    time_rows = [
        ("P4", "dense / none at equal views", "dense", "none", dense_target),
        ("P4", "dense / a one-view step", "dense", "one view", "the method expects 1.4 to 1.6"),
        (
            "P4",
            "dense, a diagnostic step / an ordinary one",
            "diagnostic",
            "dense",
            "every 10th is diagnostic",
        ),
        ("P6", "global / none at equal views", "global", "none", global_target),
        ("P6", "global / a one-view step", "global", "one view", "the method expects 1.2 to 1.3"),
        ("P7", "none / a bare timm loop on two views", "none", "bare", none_target),
    ]
    memory_rows = [
        ("P5", "dense", "none", dense_memory_target),
        ("P5", "dense", "one view", "the method expects 2 to 3"),
        ("P6", "global", "none", global_target),
        ("P6", "global", "one view", "the method expects 1.5"),
    ]
    return [
        make_time_row(row_id, f"{measure}, {setting}", times, ours, peer, target)
        for row_id, measure, ours, peer, target in time_rows
    ] + [
        make_memory_row(
            row_id,
            f"{ours} / {peer}, memory added by three steps, {setting}",
            memory,
            ours,
            peer,
            target,
        )
        for row_id, ours, peer, target in memory_rows
    ]
