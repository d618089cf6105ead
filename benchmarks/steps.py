"""Training steps of the modes beside each other and beside a bare timm loop, on one batch that lies
in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import timm
import torch
import torch.nn.functional as F

from benchmarks.measure import Row, alternate, peak, ratio, shown
from densecl.config.params import DenseContrast, GlobalContrast, Network, Train
from densecl.contrast.dense import build_objective
from densecl.contrast.objective import Contrastive
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import normalise, preprocessing
from densecl.network.vit import build
from densecl.runtime.hardware import device
from densecl.training.optim import build_optimizer
from densecl.training.step import Stepper
from densecl.training.step_cost import one_view

CLASSES = 1000
MODES = {
    "dense": DenseContrast(),
    "global": GlobalContrast(),
    "none": None,
}  # the method's own values


@dataclass(frozen=True)
class Setup:
    """What is timed, and what is aimed at: dense / none in time and memory, global / none, none /
    bare.
    """

    model: str = "vit_tiny_patch16_224"
    model_args: dict[str, int] = field(default_factory=dict)
    batch: int = 16
    queue: int = 65536
    train: Train = field(default_factory=Train)
    rounds: int = 9
    targets: tuple[str, str, str, str] = ("≤ 1.20", "≤ 1.15", "≤ 1.03", "≤ 1.05")

    @property
    def network(self) -> Network:
        return Network(model_name=self.model, model_args=self.model_args)


def batch(setup: Setup) -> ViewBatch:
    generator, side = torch.Generator().manual_seed(0), setup.model_args.get("img_size", 224)
    views = torch.randint(
        0, 256, (2, setup.batch, 3, side, side), dtype=torch.uint8, generator=generator
    )
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]).expand(setup.batch, 5)
    made = ViewBatch(
        views[0], views[1], torch.arange(setup.batch), torch.arange(setup.batch), whole, whole
    )
    return ViewBatch(*(part.to(device()) for part in made))


def stepper(setup: Setup, mode: str) -> Stepper:
    """A mode with a full memory of other images' features."""
    model = build(setup.network, CLASSES, 0).to(device())
    objective = build_objective(
        MODES[mode], model, setup.queue, 0, torch.Generator().manual_seed(0)
    ).to(device())
    if isinstance(objective, Contrastive):
        noise = F.normalize(torch.randn(setup.queue, 128, device=device()), dim=1)
        ids = torch.arange(setup.queue, device=device())
        objective.memory.write(noise, ids + setup.batch, torch.zeros_like(ids), 0)
    optimizer = build_optimizer(model, objective, setup.train)
    return Stepper(model.train(), objective, optimizer, preprocessing(model), setup.train)


def step(setup: Setup, mode: str) -> Callable[[], object]:
    return partial(stepper(setup, mode).take, batch(setup), 0.5 if MODES[mode] else 0.0, 0)


def looking(setup: Setup) -> Callable[[], object]:
    """A dense step that also watches the negatives and compares the losses' gradients: every tenth
    one does.
    """
    return partial(stepper(setup, "dense").take, batch(setup), 0.5, 0, look=True)


def three(prepare: Callable[..., Callable[[], object]], *given: object) -> Callable[[], object]:
    """Three steps, after which the optimiser's state is there and memory no longer grows."""
    one = prepare(*given)
    return lambda: [one() for _ in range(3)]


def single(setup: Setup) -> Callable[[], object]:
    """Plain classification on one view."""
    return partial(one_view, stepper(setup, "none"), batch(setup))


def bare(setup: Setup) -> Callable[[], object]:
    """The same two views in a loop of ten lines on timm and torch."""
    model = (
        timm.create_model(setup.model, num_classes=CLASSES, **setup.model_args).train().to(device())
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.05, fused=True)
    seen, values = batch(setup), preprocessing(build(setup.network, CLASSES, 0))
    lower = setup.train.precision == "bf16"

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device().type, torch.bfloat16, enabled=lower):
            logits = model(normalise(torch.cat([seen.first, seen.second]), values))
        F.cross_entropy(logits.float(), seen.labels.repeat(2)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return take


def rows(setup: Setup | None = None) -> list[Row]:
    setup = setup or Setup()
    kinds = {mode: step(setup, mode) for mode in MODES}
    kinds |= {"one view": single(setup), "bare": bare(setup), "looking": looking(setup)}
    times = alternate(kinds, setup.rounds)
    what = f"{setup.model}, batch {setup.batch}"

    def timed(name: str, measure: str, ours: str, peer: str, target: str) -> Row:
        return Row(
            name,
            f"{measure}, {what}",
            shown(times[ours]),
            shown(times[peer]),
            ratio(times[ours], times[peer]),
            target,
        )

    dense, dense_memory, other, plain = setup.targets
    found = [
        timed("P4", "dense / none at equal views", "dense", "none", dense),
        timed(
            "P4", "dense / a one-view step", "dense", "one view", "the method expects 1.4 to 1.6"
        ),
        timed(
            "P4",
            "dense, a step that looks / one that does not",
            "looking",
            "dense",
            "every 10th looks",
        ),
        timed("P6", "global / none at equal views", "global", "none", other),
        timed(
            "P6", "global / a one-view step", "global", "one view", "the method expects 1.2 to 1.3"
        ),
        timed("P7", "none / a bare timm loop on two views", "none", "bare", plain),
    ]
    grown = {mode: peak(partial(three, step, setup, mode)) for mode in MODES}
    grown["one view"] = peak(partial(three, single, setup))

    def held(name: str, mode: str, peer: str, target: str) -> Row:
        return Row(
            name,
            f"{mode} / {peer}, memory added by three steps, {what}",
            f"{grown[mode]:.0f} MiB",
            f"{grown[peer]:.0f} MiB",
            f"{grown[mode] / grown[peer]:.3f}",
            target,
        )

    return [
        *found,
        held("P5", "dense", "none", dense_memory),
        held("P5", "dense", "one view", "the method expects 2 to 3"),
        held("P6", "global", "none", other),
        held("P6", "global", "one view", "the method expects 1.5"),
    ]
