"""What a mode costs: steps of three kinds timed in turn, in one process, on one batch that lies in
memory.
"""

from __future__ import annotations

import copy
import time
from statistics import median

import torch
from torch.nn.functional import normalize

from densecl import distributed
from densecl.artifacts import Preprocessing
from densecl.config.params import Train
from densecl.contrast.memory import Rows
from densecl.contrast.objective import Contrastive, Objective
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import normalise
from densecl.network.vit import Backbone, tokens
from densecl.training.optim import build_optimizer
from densecl.training.step import Stepper

ROUNDS, BUDGET_SECONDS = 7, 8.0  # at least one round, however slow


def step_costs(
    model: Backbone, objective: Objective, values: Preprocessing, settings: Train, batch: ViewBatch
) -> dict[str, float]:
    """Median seconds of this mode's step, of classification on the same two views, and on one view.

    Works on copies with a full memory: the training that goes on is untouched.
    """
    batch = ViewBatch(
        *(column.chunk(settings.grad_accumulation)[0] for column in batch)
    )  # what is in memory at a time
    settings = settings.model_copy(update={"grad_accumulation": 1})
    mode, none = (
        _stepper(model, objective, values, settings),
        _stepper(model, Objective(), values, settings),
    )
    kinds = {
        "step_seconds": lambda: mode.take(batch, mode.objective.weight, 0),
        "none_step_seconds": lambda: none.take(batch, 0.0, 0),
        "one_view_step_seconds": lambda: one_view(none, batch),
    }
    times: dict[str, list[float]] = {name: [] for name in kinds}
    started = time.perf_counter()
    for round_ in range(ROUNDS + 1):
        for name, take in kinds.items():
            _wait()
            begun = time.perf_counter()
            take()
            _wait()
            times[name].append(time.perf_counter() - begun)
        if round_ and distributed.anywhere(
            time.perf_counter() - started > BUDGET_SECONDS
        ):  # all stop in the same round
            break
    return {name: median(seen[1:]) for name, seen in times.items()}  # the first round warms up


def one_view(stepper: Stepper, batch: ViewBatch) -> None:
    """Plain classification: one view, no objective."""
    stepper.optimizer.zero_grad(set_to_none=True)
    with stepper.autocast():
        seen = tokens(stepper.model, normalise(batch.first, stepper.values))
    stepper.classify(seen, batch.labels).backward()
    stepper.update(Rows(seen.cls[:0], batch.image_ids[:0], batch.labels[:0]), 0, 0.0)


def _stepper(
    model: Backbone, objective: Objective, values: Preprocessing, settings: Train
) -> Stepper:
    generator = getattr(objective, "generator", None)
    model, objective = (
        copy.deepcopy(model),
        copy.deepcopy(objective, {id(generator): generator.clone_state()} if generator else None),
    )
    if isinstance(objective, Contrastive):
        memory = objective.memory
        noise = torch.Generator(device="cpu").manual_seed(0)
        other = torch.arange(memory.size) + 2**40  # images of which none is in the batch
        classes = torch.arange(memory.size) % model.num_classes
        memory.write(
            normalize(torch.randn(memory.ring.shape, generator=noise), dim=1), other, classes, 0
        )
    return Stepper(model, objective, build_optimizer(model, objective, settings), values, settings)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
