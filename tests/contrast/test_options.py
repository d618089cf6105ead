"""Each option of the contrastive modes, against slow loops that follow its definition."""

import math

import pytest
import torch
import torch.nn.functional as F

from densecl.config.params import DenseContrastParams, GlobalContrastParams
from densecl.contrast import ViewPair, find_true_matches, info_nce_reference, is_mutual_match
from densecl.contrast.key_encoder import MomentumKeyEncoder
from densecl.network.vit import Tokens, build_model, forward_tokens
from tests.contrast.test_view_pairs import TINY, objective_of, rng, side, two_views


def filled(objective, rows: int = 40, seed: int = 5):
    """The objective with a memory of random entries of images 100, 101, ... and classes 0, 1, 2."""
    ids = torch.arange(rows)
    features = F.normalize(
        torch.randn(rows, objective.settings.dense_dim, generator=rng(seed)), dim=1
    )
    objective.memory.write(features, 100 + ids // 2, ids % 3, 0)
    return objective


def reference(query, key, memory, temperature: float) -> float:
    pair = (query[None].double(), key[None].double())
    return float(info_nce_reference(*pair, memory.double(), temperature).detach())


def test_published_densecl_is_a_combination_of_options():
    """Wang et al. 2021: argmax of backbone features, one direction, all patches, pooled entries."""
    settings = DenseContrastParams(
        correspondence_features="backbone",
        patches_per_image=999,
        memory_unit="image",
        dense_dim=6,
        temperature=0.2,
    )
    objective = filled(objective_of(settings))
    views = two_views()
    contrast, (rows,) = objective.forward(views)
    losses = []
    for b in range(2):
        f1, f2 = views.view1.tokens.patches[b], views.view2.tokens.patches[b]
        r, t = objective.head(f1), objective.head(f2)
        for s in range(16):
            match = max(range(16), key=lambda m: float(F.cosine_similarity(f1[s], f2[m], dim=0)))
            losses.append(
                reference(
                    F.normalize(r[s], dim=0),
                    F.normalize(t[match], dim=0),
                    objective.memory.features,
                    0.2,
                )
            )
        assert torch.allclose(rows.features[b], F.normalize(t.mean(0), dim=0), atol=1e-6)
    assert float(contrast.loss.detach()) == pytest.approx(sum(losses) / 32, abs=1e-5)
    assert rows.image_ids.tolist() == [7, 9]


def test_dense_loss_of_one_image_pair_by_hand():
    """Two patches, 2-D features, an identity head and two negatives, worked out by hand."""
    objective = objective_of(DenseContrastParams(patches_per_image=2, dense_dim=2, temperature=0.5))
    objective.head.layers = torch.nn.Identity()
    objective.memory.write(
        torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.tensor([3, 4]), torch.tensor([0, 0]), 0
    )
    first, second = (
        torch.tensor([[[2.0, 0.0], [0.6, 0.8]]]),
        torch.tensor([[[0.0, 3.0], [0.8, 0.6]]]),
    )
    one, other = (side(0, 1)._replace(tokens=Tokens(x[:, 0], x, x[:, 0])) for x in (first, second))
    contrast, (rows,) = objective.forward(
        ViewPair(one, other, torch.tensor([7]), torch.tensor([0]))
    )
    # (1, 0):     cosines 0 and 0.8, so the second patch: 0.8;  negatives 0 and -1
    # (0.6, 0.8): cosines 0.8 and 0.96, so the second:   0.96; negatives 0.8 and -0.6
    losses = [
        math.log(1 + (1 + math.exp(-2)) / math.exp(1.6)),
        math.log(1 + (math.exp(1.6) + math.exp(-1.2)) / math.exp(1.92)),
    ]
    assert losses == pytest.approx([0.206380, 0.571153], abs=1e-6)
    assert float(contrast.loss.detach()) == pytest.approx(sum(losses) / 2, abs=1e-6)
    assert float(contrast.metrics["positive_similarity"]) == pytest.approx(0.88, abs=1e-6)
    assert float(contrast.metrics["negative_similarity"]) == pytest.approx(-0.2, abs=1e-6)
    assert float(contrast.metrics["pretext_top1"]) == 1
    assert torch.allclose(rows.features, torch.tensor([[0.8, 0.6], [0.8, 0.6]]))


def test_geometric_matches_are_true_and_hidden_patches_are_excluded():
    settings = DenseContrastParams(
        correspondence_features="geometric", patches_per_image=16, dense_dim=6
    )
    objective = objective_of(settings)
    shifted = torch.tensor([[0.25, 0.25, 0.75, 0.75, 1.0]])
    views = ViewPair(side(1), side(2, geometry=shifted), torch.tensor([7, 9]), torch.tensor([0, 1]))
    pairs, new_keys = objective.build_pairs(views)
    truth, visible = find_true_matches(views.view1.geometry, views.view2.geometry, (4, 4))
    assert 0 < int(visible.sum()) < 32
    assert len(pairs.queries) == int(visible.sum()) == len(new_keys.features)
    queries = F.normalize(objective.head(views.view1.tokens.patches), dim=-1)
    keys = F.normalize(objective.head(views.view2.tokens.patches), dim=-1)
    for query, key, image in zip(pairs.queries, pairs.keys, pairs.image_ids, strict=True):
        b = 0 if image == 7 else 1
        n = int((queries[b] - query).abs().sum(1).argmin())
        assert visible[b, n]
        assert torch.allclose(key, keys[b, truth[b, n]])


@pytest.mark.parametrize("strategy", ["random", "diverse", "hardest"])
def test_filters_restrict_sampling_to_valid_patches(strategy):
    views = two_views()
    for changed in (
        {"correspondence_filter": "mutual"},
        {"correspondence_filter": "threshold", "correspondence_threshold": 0.7},
    ):
        settings = DenseContrastParams(
            patches_per_image=3, dense_dim=6, sampling_strategy=strategy, **changed
        )
        objective = filled(objective_of(settings))
        queries, keys = (F.normalize(objective.head(s.tokens.patches), dim=-1) for s in views[:2])
        cosines = queries @ keys.transpose(1, 2)
        passing = (
            is_mutual_match(queries, keys)
            if settings.correspondence_filter == "mutual"
            else cosines.amax(2) >= 0.7
        )
        pairs, _ = objective.build_pairs(views)
        assert len(pairs.queries) == int(passing.sum(1).clamp_max(3).sum())
        for query, image in zip(pairs.queries, pairs.image_ids, strict=True):
            b = 0 if image == 7 else 1
            assert passing[b, int((queries[b] - query).abs().sum(1).argmin())]


def test_hardest_is_the_negative_closest_to_overtaking_the_positive():
    objective = filled(
        objective_of(
            DenseContrastParams(patches_per_image=4, dense_dim=6, sampling_strategy="hardest")
        )
    )
    views = two_views(
        image_ids=(100, 9)
    )  # entries of image 100 are no negatives of the first image
    pairs, _ = objective.build_pairs(views)
    queries, keys = (
        F.normalize(objective.head(s.tokens.patches), dim=-1).detach() for s in views[:2]
    )
    for b, image in enumerate((100, 9)):
        others = objective.memory.features[objective.memory.image_ids != image]
        lead = [float((others @ q).max() - (keys[b] @ q).max()) for q in queries[b]]
        chosen = {
            int((queries[b] - q).abs().sum(1).argmin()) for q in pairs.queries[b * 4 : b * 4 + 4]
        }
        assert chosen == set(sorted(range(16), key=lead.__getitem__)[-4:])


def test_other_class_excludes_entries_of_the_query_class():
    objective = filled(objective_of(GlobalContrastParams(dense_dim=6, negatives="other_class")))
    views = two_views()
    contrast, _ = objective.forward(views)
    queries, keys = (F.normalize(objective.head(s.tokens.cls), dim=-1) for s in views[:2])
    memory, classes = objective.memory.features, objective.memory.class_ids
    losses = [reference(queries[b], keys[b], memory[classes != b], 0.2) for b in range(2)]
    assert float(contrast.loss.detach()) == pytest.approx(sum(losses) / 2, abs=1e-5)


def test_memory_per_image_limits_the_new_keys_of_an_image():
    objective = objective_of(
        DenseContrastParams(patches_per_image=5, dense_dim=6, memory_per_image=2)
    )
    pairs, new_keys = objective.build_pairs(two_views())
    assert new_keys.image_ids.tolist() == [7, 7, 9, 9]
    assert torch.equal(new_keys.features[:2], pairs.keys[:2])


def test_symmetric_loss_is_the_mean_of_both_directions_and_stores_both():
    views = two_views()
    back = views._replace(view1=views.view2, view2=views.view1)
    one, both = (
        filled(objective_of(GlobalContrastParams(dense_dim=6, symmetric=s))) for s in (False, True)
    )
    mean = (one.forward(views)[0].loss + one.forward(back)[0].loss).detach() / 2
    contrast, new_keys = both.forward(views)
    assert float(contrast.loss.detach()) == pytest.approx(float(mean), abs=1e-6)
    assert [keys.image_ids.tolist() for keys in new_keys] == [[7, 9], [7, 9]]


def test_momentum_encoder_moves_ever_more_slowly():
    model = build_model(TINY, 3, 0)
    objective = objective_of(
        GlobalContrastParams(dense_dim=6, key_encoder="momentum", key_momentum=0.9)
    )
    views = two_views()
    copy = objective.key_encoder
    assert isinstance(copy, MomentumKeyEncoder)
    _, (rows,) = objective.forward(views)
    with torch.no_grad():
        expected = F.normalize(
            copy.projection(forward_tokens(copy.model, views.view2.images).cls), dim=-1
        )
    assert torch.allclose(rows.features, expected, atol=1e-6)
    before = copy.model.head.weight.clone()
    with torch.no_grad():
        model.head.weight.add_(1.0)
    copy.update_from(model, objective.head, 0.0)
    assert torch.allclose(copy.model.head.weight - before, torch.full_like(before, 0.1), atol=1e-6)
    copy.update_from(model, objective.head, 1.0)  # momentum 1: no longer moves
    assert torch.allclose(copy.model.head.weight - before, torch.full_like(before, 0.1), atol=1e-6)
    assert not any(p.requires_grad for p in copy.parameters())
    assert any(
        name.startswith("key_encoder.model") for name in objective.state_dict()
    )  # travels with checkpoints


def test_diversity_metrics_count_entries_of_the_memory():
    objective = filled(objective_of(GlobalContrastParams(dense_dim=6), 80), rows=30)
    assert objective.collect_metrics(0.0) == pytest.approx(
        {
            "queue_unique_images": 15,
            "queue_unique_classes": 3,
            "queue_same_class": 1 / 3,
            "queue_age": 0,
            "queue_filled": 30 / 80,
            "temperature": 0.2,
            "lambda_weight": 0.5,
        }
    )
