"""The cost of a mode: three kinds of step timed in turn, in one process, on one batch in memory."""

import copy
import time
from collections.abc import Callable
from statistics import median

import torch
from torch.nn.functional import normalize

from densecl import distributed
from densecl.artifacts import Preprocessing
from densecl.config.params import TrainParams
from densecl.contrast.build import AnyObjective
from densecl.contrast.contrastive import ContrastiveObjective
from densecl.contrast.memory import NewKeys
from densecl.contrast.objective import NoObjective
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import normalise_images
from densecl.network.vit import Backbone, forward_tokens
from densecl.training.optim import build_optimizer
from densecl.training.step import TrainStep

TIMING_ROUNDS, BUDGET_SECONDS = 7, 8.0  # at least one round, however slow


def measure_step_costs(
    model: Backbone,
    objective: AnyObjective,
    preprocessing: Preprocessing,
    settings: TrainParams,
    batch: ViewBatch,
) -> dict[str, float]:
    """Median seconds of a step: of this mode, of mode none, and of classifying one view.

    Works on copies with a full memory queue, so that the training run is not affected. With
    `grad_accumulation`, a step is of one micro-batch.
    """
    batch = ViewBatch(*(column.chunk(settings.grad_accumulation)[0] for column in batch))
    settings = settings.model_copy(update={"grad_accumulation": 1})
    mode_step = _build_train_step(model, objective, preprocessing, settings)
    none_step = _build_train_step(model, NoObjective(), preprocessing, settings)
    steps: dict[str, Callable[[], object]] = {
        "step_seconds": lambda: mode_step(batch, mode_step.objective.lambda_weight, 0),
        "none_step_seconds": lambda: none_step(batch, 0.0, 0),
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
        # All ranks stop in the same round.
        if round_ and distributed.any_rank(time.perf_counter() - started > BUDGET_SECONDS):
            break
    return {name: median(seconds[1:]) for name, seconds in times.items()}  # round 0 warms up


def step_one_view(train_step: TrainStep, batch: ViewBatch) -> None:
    """Take a step of plain classification: one view, no objective."""
    train_step.optimizer.zero_grad(set_to_none=True)
    with train_step.autocast():
        images = normalise_images(batch.view1, train_step.preprocessing)
        tokens = forward_tokens(train_step.model, images)
    train_step.compute_classification_loss(tokens, batch.labels).backward()
    train_step.step_optimizer(
        NewKeys(tokens.cls[:0], batch.image_ids[:0], batch.labels[:0]), 0, 0.0
    )


def fill_memory(objective: AnyObjective, num_classes: int) -> None:
    """Fill the memory queue, if there is one, with noise of images that are in no batch."""
    if not isinstance(objective, ContrastiveObjective):
        return
    memory = objective.memory
    noise = torch.randn(memory.buffer.shape, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(memory.size, device=memory.buffer.device)
    memory.write(normalize(noise, dim=1), ids + 2**40, ids % num_classes, 0)


def _build_train_step(
    model: Backbone, objective: AnyObjective, preprocessing: Preprocessing, settings: TrainParams
) -> TrainStep:
    generator = getattr(objective, "generator", None)  # torch cannot deep-copy it
    known_copies = {id(generator): generator.clone_state()} if generator else None
    model, objective = copy.deepcopy(model), copy.deepcopy(objective, known_copies)
    fill_memory(objective, model.num_classes)
    optimizer = build_optimizer(model, objective, settings)
    return TrainStep(model, objective, optimizer, preprocessing, settings)


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
