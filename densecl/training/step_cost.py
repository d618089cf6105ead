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
from densecl.config.params import TrainParams
from densecl.contrast.memory import MemoryEntries
from densecl.contrast.objective import ContrastiveObjective, Objective
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, forward_tokens
from densecl.training.optim import build_optimizer
from densecl.training.step import TrainStep

TIMING_ROUNDS, BUDGET_SECONDS = 7, 8.0  # at least one round, however slow


def measure_step_costs(
    model: Backbone,
    objective: Objective,
    preprocessing: Preprocessing,
    settings: TrainParams,
    batch: ViewBatch,
) -> dict[str, float]:
    """Median seconds of this mode's step, of classification on the same two views, and on one view.

    Works on copies with a full memory: the training that goes on is untouched.
    """
    batch = ViewBatch(
        *(column.chunk(settings.grad_accumulation)[0] for column in batch)
    )  # what is in memory at a time
    settings = settings.model_copy(update={"grad_accumulation": 1})
    mode_step, none_step = (
        _build_train_step(model, objective, preprocessing, settings),
        _build_train_step(model, Objective(), preprocessing, settings),
    )
    steps = {
        "step_seconds": lambda: mode_step.step(batch, mode_step.objective.lambda_weight, 0),
        "none_step_seconds": lambda: none_step.step(batch, 0.0, 0),
        "one_view_step_seconds": lambda: step_one_view(none_step, batch),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    started = time.perf_counter()
    for round_ in range(TIMING_ROUNDS + 1):
        for name, run_step in steps.items():
            _wait_for_device()
            start = time.perf_counter()
            run_step()
            _wait_for_device()
            times[name].append(time.perf_counter() - start)
        if round_ and distributed.any_rank(
            time.perf_counter() - started > BUDGET_SECONDS
        ):  # all stop in the same round
            break
    return {
        name: median(durations[1:]) for name, durations in times.items()
    }  # the first round warms up


def step_one_view(train_step: TrainStep, batch: ViewBatch) -> None:
    """Plain classification: one view, no objective."""
    train_step.optimizer.zero_grad(set_to_none=True)
    with train_step.autocast():
        view_tokens = forward_tokens(
            train_step.model, normalise_images(batch.view1, train_step.preprocessing)
        )
    train_step.compute_classification_loss(view_tokens, batch.labels).backward()
    train_step.step_optimizer(
        MemoryEntries(view_tokens.cls[:0], batch.image_ids[:0], batch.labels[:0]), 0, 0.0
    )


def _build_train_step(
    model: Backbone, objective: Objective, preprocessing: Preprocessing, settings: TrainParams
) -> TrainStep:
    generator = getattr(objective, "generator", None)
    model, objective = (
        copy.deepcopy(model),
        copy.deepcopy(objective, {id(generator): generator.clone_state()} if generator else None),
    )
    if isinstance(objective, ContrastiveObjective):
        memory = objective.memory
        noise = torch.Generator(device="cpu").manual_seed(0)
        image_ids = torch.arange(memory.size) + 2**40  # images of which none is in the batch
        classes = torch.arange(memory.size) % model.num_classes
        memory.write(
            normalize(torch.randn(memory.buffer.shape, generator=noise), dim=1),
            image_ids,
            classes,
            0,
        )
    return TrainStep(
        model, objective, build_optimizer(model, objective, settings), preprocessing, settings
    )


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
