"""Training steps of the modes and of a bare timm loop, on one batch in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F

from benchmarks.measure import (
    BenchmarkRow,
    format_ratio,
    format_seconds,
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
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import normalise_images, resolve_preprocessing
from densecl.network.vit import build_model
from densecl.runtime.hardware import get_device
from densecl.training.optim import build_optimizer
from densecl.training.step import TrainStep
from densecl.training.step_cost import fill_memory, step_one_view

CLASSES = 1000
MODES = {
    "dense": DenseContrastParams(),
    "global": GlobalContrastParams(),
    "none": None,
}  # the method's own values


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
    def network(self) -> NetworkParams:
        return NetworkParams(model_name=self.model, model_args=self.model_args)


def build_batch(setup: StepSetup) -> ViewBatch:
    generator, size = torch.Generator().manual_seed(0), setup.model_args.get("img_size", 224)
    views = torch.randint(
        0, 256, (2, setup.batch, 3, size, size), dtype=torch.uint8, generator=generator
    )
    full_crop = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]).expand(setup.batch, 5)
    cpu_batch = ViewBatch(
        views[0],
        views[1],
        torch.arange(setup.batch),
        torch.arange(setup.batch),
        full_crop,
        full_crop,
    )
    return ViewBatch(*(part.to(get_device()) for part in cpu_batch))


def build_train_step(setup: StepSetup, mode: str) -> TrainStep:
    """A training step of a mode, with a full memory queue of other images."""
    model = build_model(setup.network, CLASSES, 0).to(get_device())
    objective = build_objective(
        MODES[mode], model, setup.queue, 0, torch.Generator().manual_seed(0)
    ).to(get_device())
    fill_memory(objective, CLASSES)
    optimizer = build_optimizer(model, objective, setup.train)
    return TrainStep(model.train(), objective, optimizer, resolve_preprocessing(model), setup.train)


def build_step(setup: StepSetup, mode: str) -> Callable[[], object]:
    return partial(
        build_train_step(setup, mode), build_batch(setup), 0.5 if MODES[mode] else 0.0, 0
    )


def build_diagnostic_step(setup: StepSetup) -> Callable[[], object]:
    """A dense step with diagnostics, as every tenth one is."""
    return partial(build_train_step(setup, "dense"), build_batch(setup), 0.5, 0, diagnostics=True)


def build_triple_step(
    prepare: Callable[..., Callable[[], object]], *args: object
) -> Callable[[], object]:
    """Three steps, after which the optimizer has its state and memory no longer grows."""
    run_step = prepare(*args)
    return lambda: [run_step() for _ in range(3)]


def build_one_view_step(setup: StepSetup) -> Callable[[], object]:
    """Plain classification on one view."""
    return partial(step_one_view, build_train_step(setup, "none"), build_batch(setup))


def build_bare_step(setup: StepSetup) -> Callable[[], object]:
    """The same two views in a loop of ten lines on timm and torch."""
    model = (
        timm.create_model(setup.model, num_classes=CLASSES, **setup.model_args)
        .train()
        .to(get_device())
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    view_batch, data_config = (
        build_batch(setup),
        resolve_preprocessing(build_model(setup.network, CLASSES, 0)),
    )
    use_bf16 = setup.train.precision == "bf16"

    def run_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(get_device().type, torch.bfloat16, enabled=use_bf16):
            logits = model(
                normalise_images(torch.cat([view_batch.view1, view_batch.view2]), data_config)
            )
        F.cross_entropy(logits.float(), view_batch.labels.repeat(2)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return run_step


def measure_rows(setup: StepSetup | None = None) -> list[BenchmarkRow]:
    setup = setup or StepSetup()
    calls = {mode: build_step(setup, mode) for mode in MODES}
    calls |= {
        "one view": build_one_view_step(setup),
        "bare": build_bare_step(setup),
        "diagnostic": build_diagnostic_step(setup),
    }
    times = measure_alternating(calls, setup.rounds)
    setting = f"{setup.model}, batch {setup.batch}"

    def format_time_row(name: str, measure: str, ours: str, peer: str, target: str) -> BenchmarkRow:
        return BenchmarkRow(
            name,
            f"{measure}, {setting}",
            format_seconds(times[ours]),
            format_seconds(times[peer]),
            format_ratio(times[ours], times[peer]),
            target,
        )

    dense_target, dense_memory_target, global_target, none_target = setup.targets
    time_rows = [
        format_time_row("P4", "dense / none at equal views", "dense", "none", dense_target),
        format_time_row(
            "P4", "dense / a one-view step", "dense", "one view", "the method expects 1.4 to 1.6"
        ),
        format_time_row(
            "P4",
            "dense, a diagnostic step / an ordinary one",
            "diagnostic",
            "dense",
            "every 10th is diagnostic",
        ),
        format_time_row("P6", "global / none at equal views", "global", "none", global_target),
        format_time_row(
            "P6", "global / a one-view step", "global", "one view", "the method expects 1.2 to 1.3"
        ),
        format_time_row("P7", "none / a bare timm loop on two views", "none", "bare", none_target),
    ]
    peak_memory = {
        mode: measure_peak_memory(partial(build_triple_step, build_step, setup, mode))
        for mode in MODES
    }
    peak_memory["one view"] = measure_peak_memory(
        partial(build_triple_step, build_one_view_step, setup)
    )

    def format_memory_row(name: str, mode: str, peer: str, target: str) -> BenchmarkRow:
        return BenchmarkRow(
            name,
            f"{mode} / {peer}, memory added by three steps, {setting}",
            f"{peak_memory[mode]:.0f} MiB",
            f"{peak_memory[peer]:.0f} MiB",
            f"{peak_memory[mode] / peak_memory[peer]:.3f}",
            target,
        )

    return [
        *time_rows,
        format_memory_row("P5", "dense", "none", dense_memory_target),
        format_memory_row("P5", "dense", "one view", "the method expects 2 to 3"),
        format_memory_row("P6", "global", "none", global_target),
        format_memory_row("P6", "global", "one view", "the method expects 1.5"),
    ]
