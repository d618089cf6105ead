"""Training steps of the modes beside each other and beside a bare timm loop: vit_tiny_patch16_224 on one batch in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from statistics import median

import timm
import torch
import torch.nn.functional as F

from benchmarks.measure import Row, alternate, peak, ratio
from densecl.contrast.objectives import build_objective
from densecl.datasets.batch import ViewBatch
from densecl.network.preprocessing import normalise, preprocessing
from densecl.network.vit import build
from densecl.params import DenseContrast, GlobalContrast, Network, Train
from densecl.training.cost import one_view
from densecl.training.schedules import build_optimizer
from densecl.training.step import Stepper

MODEL, BATCH, CLASSES, QUEUE = "vit_tiny_patch16_224", 16, 1000, 65536
SETTINGS = {"dense": DenseContrast(), "global": GlobalContrast(), "none": None}


def batch() -> ViewBatch:
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (2, BATCH, 3, 224, 224), dtype=torch.uint8, generator=generator)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]).expand(BATCH, 5)
    return ViewBatch(views[0], views[1], torch.arange(BATCH), torch.arange(BATCH), whole, whole)


def stepper(mode: str) -> Stepper:
    """A mode with the method's values and a full memory of other images' features."""
    model, settings = build(Network(model_name=MODEL), CLASSES, 0), Train()
    generator = torch.Generator().manual_seed(0)
    objective = build_objective(SETTINGS[mode], model, QUEUE, 0, generator)
    if SETTINGS[mode]:
        noise = F.normalize(torch.randn(QUEUE, 128, generator=generator), dim=1)
        objective.memory.write(noise, torch.arange(QUEUE) + BATCH, torch.zeros(QUEUE, dtype=torch.long), 0)  # type: ignore[operator, union-attr]
    return Stepper(
        model.train(), objective, build_optimizer(model, objective, settings), preprocessing(model), settings
    )


def step(mode: str) -> Callable[[], object]:
    return partial(stepper(mode).take, batch(), 0.5 if SETTINGS[mode] else 0.0, 0)


def steps(mode: str) -> Callable[[], object]:
    """Three steps, after which the optimiser's state is there and memory no longer grows."""
    one = step(mode)
    return lambda: [one() for _ in range(3)]


def single() -> Callable[[], object]:
    """Plain classification on one view."""
    return partial(one_view, stepper("none"), batch())


def bare() -> Callable[[], object]:
    """The same two views in a loop of ten lines on timm and torch."""
    model, seen = timm.create_model(MODEL, num_classes=CLASSES).train(), batch()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    values = preprocessing(build(Network(model_name=MODEL), CLASSES, 0))

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        logits = model(normalise(torch.cat([seen.first, seen.second]), values))
        F.cross_entropy(logits, seen.labels.repeat(2)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return take


def rows() -> list[Row]:
    kinds = {mode: step(mode) for mode in SETTINGS} | {"one view": single(), "bare": bare()}
    times = alternate(kinds, 7)
    grown = {mode: peak(steps, mode) for mode in SETTINGS}

    def timed(name: str, measure: str, ours: str, peer: str, target: str) -> Row:
        return Row(
            name, f"{measure}, {MODEL}, batch {BATCH}", f"{median(times[ours]):.3f} s", f"{median(times[peer]):.3f} s",
            ratio(times[ours], times[peer]), target,
        )  # fmt: skip

    def held(name: str, mode: str, target: str) -> Row:
        return Row(
            name, f"{mode} / none, memory added by three steps", f"{grown[mode]:.0f} MiB", f"{grown['none']:.0f} MiB",
            f"{grown[mode] / grown['none']:.3f}", target,
        )  # fmt: skip

    return [
        timed("P4", "dense / none at equal views", "dense", "none", "≤ 1.20"),
        timed("P4", "dense / a one-view step", "dense", "one view", "the method expects 1.4 to 1.6"),
        held("P5", "dense", "≤ 1.15"),
        timed("P6", "global / none at equal views", "global", "none", "≤ 1.03"),
        held("P6", "global", "≤ 1.03"),
        timed("P7", "none / a bare timm loop on two views", "none", "bare", "≤ 1.05"),
    ]
