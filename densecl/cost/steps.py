"""The steps whose cost is measured: a training step of each mode, and of classifying one view."""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

import torch
from torch.nn.functional import normalize

from densecl.artifacts import CostPlan
from densecl.contrast.build import AnyObjective, build_objective, limit_queue_size
from densecl.contrast.contrastive import ContrastiveObjective
from densecl.contrast.memory import NewKeys
from densecl.datasets.views.batch import ViewBatch
from densecl.network.preprocessing import normalise_images, resolve_preprocessing
from densecl.network.vit import build_model, forward_tokens, get_patch_grid
from densecl.runtime.hardware import get_device
from densecl.training.step import TrainStep

ONE_VIEW: Final = "one view"  # classification of one view, as without this method; no mode's name
Step = Callable[[], object]


class TrainingSize(NamedTuple):
    """Counts of the training dataset that a step depends on; its images do not matter."""

    images: int
    classes: int


def count_batch_images(plan: CostPlan, size: TrainingSize) -> int:
    """Images that one process puts through the model at once: a micro-batch of its share."""
    batch = min(plan.train.batch_size, size.images)
    return max(1, batch // (plan.train.grad_accumulation * plan.processes))


def build_random_batch(images: int, height: int, width: int, classes: int) -> ViewBatch:
    """A batch of noise on the device, both views the same.

    Time does not depend on what images show, but for `correspondence_filter`, which leaves pairs
    out: of equal views all matches are kept, so the most that a step costs is measured.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (images, 3, height, width)
    view = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    rows = torch.arange(images)
    full_crop = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]]).expand(images, 5)
    columns = (view, view.clone(), rows % classes, rows, full_crop, full_crop)
    return ViewBatch(*(column.to(get_device()) for column in columns))


def count_timed_images(plan: CostPlan, size: TrainingSize) -> int:
    """Images of the steps that are timed."""
    images = count_batch_images(plan, size)
    return min(images, plan.budget.images or images)


def build_steps(
    plan: CostPlan, size: TrainingSize, kind: str, images: int
) -> tuple[Step, Step, int]:
    """An ordinary and a diagnostic step of a mode or of ONE_VIEW on `images`, and its memory's
    entries.

    With `grad_accumulation`, a step is of one micro-batch.
    """
    train_step = build_train_step(plan, size, "none" if kind == ONE_VIEW else kind)
    height, width = train_step.preprocessing.input_size[1:]
    batch = build_random_batch(images, height, width, size.classes)
    if kind == ONE_VIEW:
        step = partial(step_one_view, train_step, batch)
        return step, step, 0
    weight = train_step.objective.lambda_weight
    ordinary = partial(train_step, batch, weight, 0)
    return ordinary, partial(ordinary, diagnostics=True), train_step.objective.memory_size


def build_train_step(plan: CostPlan, size: TrainingSize, mode: str) -> TrainStep:
    """The training step of a mode as in training, with a full memory queue."""
    device = get_device()
    train = plan.get_train(mode)
    model = build_model(plan.network, size.classes, 0, train.drop_path).to(device)
    contrast = plan.contrast[mode]
    with warnings.catch_warnings():  # training says it
        warnings.filterwarnings("ignore", "contrast.queue_size")
        queue_size = limit_queue_size(contrast, size.images, math.prod(get_patch_grid(model)))
    generator = torch.Generator().manual_seed(0)
    objective = build_objective(contrast, model, queue_size, 0, generator).to(device)
    fill_memory(objective, size.classes)
    update = {
        "grad_accumulation": 1,
        "checkpoint_activations": plan.checkpoint_activations,
    }
    settings = train.model_copy(update=update)
    return TrainStep(model.train(), objective, resolve_preprocessing(model), settings)


def step_one_view(train_step: TrainStep, batch: ViewBatch) -> None:
    """Take a step of plain classification: one view, no objective."""
    with train_step.use_precision():
        train_step.optimizer.zero_grad(set_to_none=True)
        with train_step.scorer.autocast():
            images = normalise_images(batch.view1, train_step.preprocessing)
            tokens = forward_tokens(train_step.model, images)
        train_step.scorer.compute_classification_loss(tokens, batch.labels).backward()
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
