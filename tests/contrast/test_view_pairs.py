"""Matching, sampling, memory queue and objectives against slow re-derivations."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from densecl.config.params import DenseContrastParams, GlobalContrastParams, NetworkParams
from densecl.contrast import (
    SAMPLERS,
    EncodedView,
    MemoryQueue,
    NoObjective,
    Temperature,
    ViewPair,
    build_objective,
    match_patches,
)
from densecl.contrast.temperature import TEMPERATURE_BOUNDS
from densecl.network.vit import Tokens, build_model

TINY = NetworkParams(
    model_name="vit_tiny_patch16_224",
    model_args={"img_size": 32, "patch_size": 8, "embed_dim": 8, "depth": 2, "num_heads": 2},
)
WHOLE = torch.tensor([[0.0, 0, 1, 1, 0]])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_match_is_the_argmax_and_permutes_with_the_second_view():
    first, second = torch.randn(2, 5, 4, generator=rng()), torch.randn(2, 6, 4, generator=rng(1))
    index = match_patches(first, second)
    for b in range(2):
        for n in range(5):
            cosines = [
                float(F.cosine_similarity(first[b, n], second[b, m], dim=0)) for m in range(6)
            ]
            assert index[b, n] == max(range(6), key=cosines.__getitem__)
    order = torch.randperm(6, generator=rng(2))
    assert torch.equal(order[match_patches(first, second[:, order])], index)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_pick_distinct_patches_of_each_image(name):
    picks = SAMPLERS[name](
        torch.randn(3, 20, 8, generator=rng()), 7, rng(1), torch.randn(3, 20, generator=rng(2))
    )
    assert picks.shape == (3, 7)
    assert all(len(set(row.tolist())) == 7 for row in picks)


def test_diverse_covers_all_directions_and_hardest_picks_the_largest_scores():
    directions = torch.eye(4).repeat_interleave(25, 0)[None]  # 4 directions, 25 patches each
    reached = {
        name: [
            len(set((SAMPLERS[name](directions, 4, rng(seed))[0] // 25).tolist()))
            for seed in range(20)
        ]
        for name in ("diverse", "random")
    }
    assert reached["diverse"] == [4] * 20
    assert sum(reached["random"]) / 20 < 3.5  # 2.7 expected
    scores = torch.zeros(1, 100)
    scores[0, [3, 50]] = 1
    assert sorted(SAMPLERS["hardest"](directions, 2, rng(), scores)[0].tolist()) == [3, 50]


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_take_valid_patches_first_and_at_most_all(name):
    features, allowed = torch.randn(50, 9, 8, generator=rng()), torch.zeros(50, 9, dtype=torch.bool)
    allowed[:, [1, 4, 7]] = True
    for scores in (torch.randn(50, 9, generator=rng(2)), torch.full((50, 9), -torch.inf), None):
        picks = SAMPLERS[name](features, 3, rng(1), scores, allowed)
        assert picks.sort(1).values.tolist() == [[1, 4, 7]] * 50
        some = SAMPLERS[name](features, 5, rng(1), scores, allowed)
        assert all({1, 4, 7} < set(row) and len(set(row)) == 5 for row in some.tolist())
        assert (
            SAMPLERS[name](features, 99, rng(1), scores).sort(1).values.tolist()
            == [list(range(9))] * 50
        )


def test_hardest_breaks_ties_at_random():
    features, scores = torch.randn(400, 6, 4, generator=rng()), torch.zeros(400, 6)
    shares = (
        torch.bincount(SAMPLERS["hardest"](features, 2, rng(1), scores).flatten(), minlength=6)
        / 800
    )
    assert (shares - 1 / 6).abs().max() < 0.06


@settings(max_examples=50, deadline=None)
@given(size=st.integers(1, 17), writes=st.lists(st.integers(0, 40), max_size=8))
def test_memory_holds_the_last_rows_written(size, writes):
    memory, rows, total = MemoryQueue(size, 2), [], 0
    for step, count in enumerate(writes):
        ids = torch.arange(total, total + count)
        memory.write(torch.stack([ids, -ids], 1).float(), ids, ids % 5, step)
        rows += [(int(i), step) for i in ids]
        total += count
    tail = rows[-size:] if rows else []
    assert memory.filled == len(tail)
    assert list(zip(memory.image_ids.tolist(), memory.steps.tolist(), strict=True)) == tail
    assert memory.features[:, 0].tolist() == [float(i) for i, _ in tail]
    assert memory.class_ids.tolist() == [i % 5 for i, _ in tail]
    again = MemoryQueue(size, 2)
    again.load_state_dict(memory.state_dict())
    for each in (memory, again):
        each.write(torch.ones(3, 2), torch.full((3,), 99), torch.zeros(3, dtype=torch.int64), 9)
    assert torch.equal(again.features, memory.features)
    assert torch.equal(again.image_ids, memory.image_ids)


@settings(max_examples=50, deadline=None)
@given(
    size=st.integers(1, 17),
    writes=st.lists(st.integers(0, 20), min_size=1, max_size=6),
    age=st.integers(1, 4),
    further=st.integers(0, 30),
)
def test_discarding_leaves_the_recent_rows_in_order(size, writes, age, further):
    memory, rows = MemoryQueue(size, 2), []

    def write(count: int, step: int) -> None:
        ids = torch.arange(len(rows), len(rows) + count)
        memory.write(torch.stack([ids, -ids], 1).float(), ids, ids % 5, step)
        rows.extend((int(i), step) for i in ids)

    for step, count in enumerate(writes):
        write(count, step)
    recent = len(writes) - age
    memory.discard_before(recent)
    kept = [row for row in rows[-size:] if row[1] >= recent]
    assert list(zip(memory.image_ids.tolist(), memory.steps.tolist(), strict=True)) == kept
    assert memory.filled == len(kept)
    write(further, len(writes))
    kept = [*kept, *rows[len(rows) - further :]][-size:]
    assert list(zip(memory.image_ids.tolist(), memory.steps.tolist(), strict=True)) == kept
    assert memory.features[:, 1].tolist() == [-float(i) for i, _ in kept]
    assert memory.class_ids.tolist() == [i % 5 for i, _ in kept]


def side(seed: int, images: int = 2, geometry: torch.Tensor = WHOLE) -> EncodedView:
    generator = rng(seed)
    seen = Tokens(
        torch.randn(images, 8, generator=generator),
        torch.randn(images, 16, 8, generator=generator),
        torch.randn(images, 3, generator=generator),
    )
    return EncodedView(
        seen, torch.randn(images, 3, 32, 32, generator=generator), geometry.expand(images, 5)
    )


def two_views(first: int = 1, second: int = 2, image_ids: tuple[int, ...] = (7, 9)) -> ViewPair:
    return ViewPair(side(first), side(second), torch.tensor(image_ids), torch.tensor([0, 1]))


def objective_of(settings_, size: int = 64):
    return build_objective(settings_, build_model(TINY, 3, 0), size, 0, rng())


@pytest.mark.parametrize("features", ["dense", "backbone"])
def test_dense_pairs_are_sampled_patches_with_their_matches(features):
    objective = objective_of(
        DenseContrastParams(patches_per_image=4, dense_dim=5, correspondence_features=features)
    )
    views = two_views()
    pairs, new_keys = objective.build_pairs(views)
    assert pairs.queries.shape == pairs.keys.shape == (8, 5)
    assert pairs.image_ids.tolist() == [7] * 4 + [9] * 4
    first, second = views.view1.tokens.patches, views.view2.tokens.patches
    dense1, dense2 = (F.normalize(objective.head(p), dim=-1) for p in (first, second))
    compared = (first, second) if features == "backbone" else (dense1, dense2)
    for row, query in enumerate(pairs.queries):
        b = row // 4
        n = int((dense1[b] - query).abs().sum(1).argmin())
        cosines = F.cosine_similarity(compared[0][b, n][None], compared[1][b], dim=1)
        assert torch.allclose(pairs.keys[row], dense2[b, int(cosines.argmax())])
    assert not pairs.keys.requires_grad
    assert pairs.queries.requires_grad
    assert torch.equal(new_keys.features, pairs.keys)


def test_loss_uses_the_memory_before_the_step_and_the_update_adds_the_keys():
    objective = objective_of(GlobalContrastParams(dense_dim=5), 16)
    views = two_views(image_ids=(0, 1))
    contrast, (rows,) = objective.forward(views)
    assert contrast.loss.item() == 0  # an empty memory has no negatives
    objective.update_after_step(build_model(TINY, 3, 0), rows, 0, 0.1)
    assert torch.equal(objective.memory.features, rows.features)
    contrast, _ = objective.forward(views)
    assert float(contrast.metrics["contrastive_chance"]) == pytest.approx(
        math.log(2)
    )  # of two entries, one is the query's own image
    assert float(contrast.loss.detach()) > 0


def test_lambda_ramp_rises_from_zero_to_the_target():
    settings_ = GlobalContrastParams(
        lambda_weight=0.6, contrastive_weight_adaptive=True, ramp_epochs=4
    )
    objective = objective_of(settings_)
    values = [objective.compute_lambda_weight(e / 4) for e in range(25)]
    assert values[0] == 0
    assert values[16] == values[-1] == pytest.approx(0.6)
    assert values == sorted(values)
    assert objective.compute_lambda_weight(2.0) == pytest.approx(0.3)
    assert NoObjective().compute_lambda_weight(3.0) == 0


@pytest.mark.parametrize(
    ("towards", "bound"), [(-1.0, TEMPERATURE_BOUNDS[1]), (1.0, TEMPERATURE_BOUNDS[0])]
)
def test_learned_temperature_stays_within_bounds_and_can_return(towards, bound):
    objective = objective_of(GlobalContrastParams(dense_dim=5, learnable_temp=True), 16)
    optimizer = torch.optim.SGD(objective.temperature.parameters(), lr=10.0)
    model, (_, (rows,)) = build_model(TINY, 3, 0), objective.forward(two_views())

    def step(sign: float) -> float:
        optimizer.zero_grad()
        (sign * objective.temperature()).backward()
        optimizer.step()
        objective.update_after_step(model, rows, 0, 0.0)
        return float(objective.temperature().detach())

    assert float(objective.temperature().detach()) == pytest.approx(0.2)
    for _ in range(300):
        step(towards)
    assert step(towards) == pytest.approx(bound)
    assert step(-towards) != pytest.approx(bound)
    assert not Temperature(0.2, learnable=False).log.requires_grad
