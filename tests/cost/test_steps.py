"""The measured steps are those of training: same step, full memory, all pairs kept."""

from pathlib import Path

import pytest
import torch

from densecl.artifacts import CostPlan
from densecl.config.params import Params, load_params, parse_params
from densecl.contrast.contrastive import ContrastiveObjective
from densecl.cost.load import CpuSnapshot, compare_snapshots, take_snapshot
from densecl.cost.memory import measure_added_memory
from densecl.cost.steps import (
    ONE_VIEW,
    TrainingSize,
    build_random_batch,
    build_steps,
    build_train_step,
    count_batch_images,
    count_timed_images,
)
from steps.unit_plans import resolve_cost_plan

SMALL = Path(__file__).parents[1] / "small.yaml"
SIZE = TrainingSize(images=120, classes=10)


def build_plan(**train: int) -> CostPlan:
    params: Params = load_params(SMALL)
    values = params.model_dump(mode="json", by_alias=True)
    values["train"] |= {"batch_size": 8, **train}
    return resolve_cost_plan(parse_params(values, ""))


@pytest.mark.parametrize("mode", ["dense", "global"])
def test_the_memory_is_full_and_as_large_as_in_training(mode):
    objective = build_train_step(build_plan(), SIZE, mode).objective
    assert isinstance(objective, ContrastiveObjective)
    keys_per_image = {"dense": 50, "global": 1}[mode]
    assert objective.memory_size == 120 * keys_per_image // 2  # half an epoch
    assert objective.memory.filled == objective.memory_size


def test_every_match_of_the_batch_is_kept():
    """The filter leaves pairs out by content: the measured batch costs the most that one can."""
    train_step = build_train_step(build_plan(), SIZE, "dense")
    batch = build_random_batch(8, 64, 64, SIZE.classes)
    _, (new_keys,) = train_step.objective.forward(train_step.scorer.encode_views(batch), False)
    assert len(new_keys.features) == 8 * 50


def test_a_process_takes_its_share_of_a_micro_batch():
    assert count_batch_images(build_plan(batch_size=32), SIZE) == 32
    assert count_batch_images(build_plan(batch_size=512), SIZE) == SIZE.images
    assert count_batch_images(build_plan(batch_size=32, grad_accumulation=2), SIZE) == 16
    assert (
        count_batch_images(build_plan(batch_size=32, grad_accumulation=2, processes=4), SIZE) == 4
    )


@pytest.mark.parametrize(("images", "expected"), [(None, 16), (8, 8), (64, 16)])
def test_a_timed_step_has_at_most_the_images_of_a_training_step(images, expected):
    plan = build_plan(batch_size=16)
    budget = plan.budget.model_copy(update={"images": images})
    assert count_timed_images(plan.model_copy(update={"budget": budget}), SIZE) == expected


def test_steps_run_and_move_the_weights():
    for kind in ("dense", "global", "none", ONE_VIEW):
        for step in build_steps(build_plan(), SIZE, kind, images=32)[:2]:
            train_step = step.func if kind != ONE_VIEW else step.args[0]
            before = [p.clone() for p in train_step.model.parameters()]
            step()
            after = list(train_step.model.parameters())
            assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.slow
def test_added_memory_grows_with_the_batch_and_not_with_the_code():
    size = TrainingSize(images=600, classes=10)
    few, many = (
        measure_added_memory(build_plan(batch_size=images), size, "none") for images in (64, 256)
    )
    assert few
    assert many
    assert few < 120 * 2**20  # importing torch and timm takes more
    assert 2.0 < many / few < 4.5


def test_busy_cores_are_those_of_others():
    start = CpuSnapshot(time=100.0, total=1000.0, own=50.0, load=0.5)
    end = CpuSnapshot(time=110.0, total=1018.0, own=59.0, load=1.5)
    load = compare_snapshots(start, end)
    assert (load.busy_cores, load.start, load.end) == (0.9, 0.5, 1.5)  # (18 - 9) / 10
    assert compare_snapshots(start, end._replace(total=None)).busy_cores is None
    assert take_snapshot().own > 0
