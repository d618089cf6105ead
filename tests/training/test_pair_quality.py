"""The judged pairs are those of the loss, and their outcomes those of a loop over the geometry."""

import math

import pytest
import torch
import torch.nn.functional as F

from densecl.config.params import DenseContrastParams
from densecl.contrast import build_objective
from densecl.contrast.dense import PatchSelection
from densecl.contrast.matching import compute_true_positions
from densecl.datasets.views.batch import ImageViews, ViewGeometry
from densecl.network.preprocessing import normalise_images, resolve_preprocessing
from densecl.network.vit import build_model, forward_tokens
from densecl.training.diagnostics import FeatureDiagnostics, measure_match_accuracy
from densecl.training.pair_quality import judge_pairs, summarise_pairs
from tests.contrast.test_options import filled
from tests.contrast.test_view_pairs import TINY, objective_of, rng, side, two_views

SETTINGS = {
    "plain": {},
    "mutual": {"correspondence_filter": "mutual"},
    "threshold": {"correspondence_filter": "threshold", "correspondence_threshold": 0.6},
    "geometric": {"correspondence_features": "geometric"},
    "hardest": {"sampling_strategy": "hardest", "correspondence_filter": "mutual"},
    "momentum": {"key_encoder": "momentum", "correspondence_features": "backbone"},
}


def shifted_views(images: int = 5):
    """Random tokens of crops that overlap in part, some of them flipped."""
    generator = rng(3)
    boxes = []
    for _ in range(2):
        corner = 0.5 * torch.rand(images, 2, generator=generator)
        flipped = (torch.rand(images, 1, generator=generator) > 0.5).float()
        boxes.append(torch.cat([corner, torch.full((images, 2), 0.5), flipped], 1))
    views = two_views()
    view1, view2 = (side(s, images)._replace(geometry=box) for s, box in enumerate(boxes))
    ids = torch.arange(images)
    return views._replace(view1=view1, view2=view2, image_ids=ids, class_ids=ids % 2)


@pytest.mark.parametrize("name", SETTINGS)
def test_selected_patches_are_the_pairs_of_the_loss(name):
    settings = DenseContrastParams(patches_per_image=6, dense_dim=5, **SETTINGS[name])
    objective, views = filled(objective_of(settings)), shifted_views()
    again = rng()
    again.set_state(objective.generator.get_state())
    pairs, _ = objective.build_pairs(views)
    features = objective.encode_patches(views)
    picks, matches, valid = objective.select_patches(features, views, again)
    kept = torch.ones_like(picks, dtype=torch.bool) if valid is None else valid
    rows = [(b, m) for b in range(5) for m in range(6) if kept[b, m]]
    assert len(rows) == len(pairs.queries) > 0
    keys = F.normalize(features.projected2, dim=-1)
    for row, (b, m) in enumerate(rows):
        assert torch.equal(pairs.queries[row], features.queries[b, picks[b, m]])
        assert torch.allclose(pairs.keys[row], keys[b, matches[b, m]])
    outcomes = judge_pairs(
        PatchSelection(picks, matches, valid), views.view1.geometry, views.view2.geometry, (4, 4)
    )
    assert len(outcomes) == len(pairs.queries)
    if name == "geometric":
        assert outcomes[:, 0].all()
        assert not outcomes[:, 1:3].any()


def test_outcomes_follow_their_definitions_pair_by_pair():
    views, generator = shifted_views(40), rng(1)
    boxes = views.view1.geometry, views.view2.geometry
    picks = torch.randint(16, (40, 9), generator=generator)
    matches = torch.randint(16, (40, 9), generator=generator)
    valid = torch.rand(40, 9, generator=generator) > 0.3
    position, expected = compute_true_positions(*boxes, (4, 4)), []
    for b in range(40):
        for m in range(9):
            if not valid[b, m]:
                continue
            down, across = position[b, picks[b, m]].tolist()
            visible = 0 <= down < 4 and 0 <= across < 4
            apart = [
                max(abs(index // 4 - math.floor(down)), abs(index % 4 - math.floor(across)))
                for index in (int(matches[b, m]), int(picks[b, m]))
            ]
            shown = [apart[0] == 0, apart[0] == 1, False, apart[1] == 0]
            expected.append(shown if visible else [False, False, True, False])
    outcomes = judge_pairs(PatchSelection(picks, matches, valid), *boxes, (4, 4))
    assert outcomes.tolist() == expected
    assert (outcomes.sum(0) > 5).all()
    metrics = summarise_pairs(outcomes, 40, 16)
    shares = outcomes.double().mean(0).tolist()
    assert metrics == pytest.approx(
        {
            "match/pairs/true": shares[0],
            "match/pairs/near": shares[1],
            "match/pairs/invisible": shares[2],
            "match/pairs/identity": shares[3],
            "match/pairs/chance": (1 - shares[2]) / 16,
            "match/pairs/per_image": len(expected) / 40,
        }
    )


def test_no_pair_has_no_shares():
    metrics = summarise_pairs(torch.zeros(0, 4, dtype=torch.bool), 3, 16)
    assert metrics.pop("match/pairs/per_image") == 0
    assert all(math.isnan(value) for value in metrics.values())


class RandomViews:
    """Views of noise, as TwoViewDataset gives them."""

    def __len__(self) -> int:
        return 7

    def __getitem__(self, key: tuple[int, int]) -> ImageViews:
        row, generator = key[1], rng(key[1])
        pixels = torch.randint(0, 256, (2, 3, 32, 32), generator=generator, dtype=torch.uint8)
        corners = (0.5 * torch.rand(2, 2, generator=generator)).tolist()
        boxes = [ViewGeometry(*corner, 0.5, 0.5, row % 2 == 0) for corner in corners]
        return ImageViews(pixels[0], pixels[1], row % 2, row, *boxes, None)


def diagnosed(objective, model):
    diagnostics = FeatureDiagnostics(RandomViews(), 0, torch.device("cpu"))
    metrics = diagnostics.compute_diagnostics(model, objective, resolve_preprocessing(model), 3)
    return diagnostics.batch, metrics


@pytest.mark.parametrize("symmetric", [False, True])
def test_diagnostics_use_the_momentum_keys_and_leave_training_alone(symmetric):
    model = build_model(TINY, 3, 0).train()
    settings = DenseContrastParams(
        patches_per_image=16, dense_dim=6, key_encoder="momentum", symmetric=symmetric
    )
    objective = build_objective(settings, model, 64, 0, rng())
    with torch.no_grad():  # an average that is far from the trained weights
        for parameter in objective.key_encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng(9)))
    state = objective.generator.get_state()
    batch, metrics = diagnosed(objective, model)
    assert torch.equal(objective.generator.get_state(), state)
    assert model.training
    assert objective.memory.filled == 0

    views = [normalise_images(v, resolve_preprocessing(model)) for v in (batch.view1, batch.view2)]
    trained = build_model(TINY, 3, 0).eval(), objective.head
    averaged = objective.key_encoder.model, objective.key_encoder.projection
    with torch.no_grad():
        pictures = [
            [head(forward_tokens(encoder, view).patches) for encoder, head in (trained, averaged)]
            for view in views
        ]
    expected = measure_match_accuracy(
        {"dense": (pictures[0][0], pictures[1][1])}, batch.geometry1, batch.geometry2, (4, 4)
    )
    assert metrics["match/dense/within1"] == pytest.approx(expected["match/dense/within1"])
    # All patches are sampled, so the pairs are the visible patches and the invisible ones.
    if not symmetric:
        assert metrics["match/pairs/true"] == pytest.approx(
            metrics["match/dense/within0"] * metrics["match/visible"]
        )
        assert metrics["match/pairs/invisible"] == pytest.approx(1 - metrics["match/visible"])
        assert metrics["match/pairs/chance"] == pytest.approx(metrics["match/visible"] / 16)
    assert metrics["match/pairs/per_image"] == (32 if symmetric else 16)


def test_only_the_dense_mode_has_pairs_of_patches():
    model = build_model(TINY, 3, 0)
    _, metrics = diagnosed(build_objective(None, model, 0, 0, rng()), model)
    assert "match/last/within0" in metrics
    assert not [name for name in metrics if name.startswith(("match/pairs", "match/dense"))]
