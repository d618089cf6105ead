"""Options of the optimisation, and metrics, on one small batch."""

import shutil

import pytest
import torch
import torch.nn.functional as F

from densecl.config.params import DenseContrastParams, GlobalContrastParams, TrainParams
from densecl.contrast import build_objective
from densecl.metrics import compute_effective_rank, compute_mean_cosine
from densecl.network.logistic_regression import fit_linear_probe
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import build_model
from densecl.training.optim import build_optimizer, build_schedule
from densecl.training.step import TrainStep
from densecl.training.step_metrics import (
    MIN_FEATURE_RANK,
    compute_epoch_means,
    find_training_warnings,
)
from tests.training.test_trainer import CONTRASTS, NETWORK, batch_of


def stepper(contrast, **settings) -> TrainStep:
    train = TrainParams(**({"learning_rate": 1e-3, "batch_size": 8} | settings))
    model = build_model(NETWORK, 3, 0)
    objective = build_objective(contrast, model, 64, 0, torch.Generator().manual_seed(0))
    return TrainStep(model, objective, resolve_preprocessing(model), train)


@pytest.mark.parametrize(
    "mode", ["dense", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("global", "none"))]
)
def test_overfits_thirty_two_images(mode):
    batch = batch_of(32)
    contrast = {
        "dense": DenseContrastParams(queue_size=512, patches_per_image=8, dense_dim=16),
        "global": GlobalContrastParams(queue_size=128, dense_dim=16),
        "none": None,
    }[mode]
    learner = stepper(contrast, batch_size=32, learning_rate=2e-3)
    outcomes = [learner(batch, 0.2 if contrast else 0.0, step, step / 120) for step in range(120)]
    assert float(outcomes[-1]["train_top1"]) == 1
    assert float(outcomes[-1]["classification_loss"]) < 0.2 * float(
        outcomes[0]["classification_loss"]
    )
    if contrast:
        assert float(outcomes[-1]["positive_similarity"]) > float(
            outcomes[0]["positive_similarity"]
        )
    learner.model.eval()
    cls = learner.scorer.encode_views(batch).view1.tokens.cls.detach()
    assert float(compute_effective_rank(cls)) > MIN_FEATURE_RANK


@pytest.mark.parametrize(("images", "parts"), [(10, 8), (7, 3), (8, 4)])
@pytest.mark.parametrize("mode", ["dense", "global", "none"])
def test_micro_batches_of_any_size_give_the_gradient_of_the_batch(mode, images, parts):
    """The batch of a dataset smaller than train.batch_size may not divide evenly."""
    contrast = {
        "dense": DenseContrastParams(queue_size=64, patches_per_image=16, dense_dim=16)
    }.get(mode, CONTRASTS[mode])
    found = []
    for settings in ({}, {"grad_accumulation": parts, "batch_size": 8 * parts}):
        learner = stepper(contrast, grad_clip=None, **settings)
        if contrast:
            noise = F.normalize(
                torch.randn(64, contrast.dense_dim, generator=torch.Generator().manual_seed(3)),
                dim=1,
            )
            learner.objective.memory.write(
                noise, torch.arange(64) + 100, torch.zeros(64, dtype=torch.long), 0
            )
        outcome = learner(batch_of(images), 0.5, 0)
        grads = torch.cat([p.grad.flatten() for p in learner.model.parameters()])
        found.append((float(outcome["loss"]), float(outcome["train_top1"]), grads))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert found[0][1] == pytest.approx(found[1][1])
    assert (found[0][2] - found[1][2]).norm() <= 1e-5 * found[0][2].norm()


@pytest.mark.parametrize("mode", ["global", "none"])
def test_accumulated_steps_equal_whole_batch_steps(mode):
    whole, parts = stepper(CONTRASTS[mode]), stepper(CONTRASTS[mode], grad_accumulation=4)
    for step in range(3):
        seen = [s(batch_of(8), 0.5, step) for s in (whole, parts)]
        assert float(seen[0]["loss"]) == pytest.approx(float(seen[1]["loss"]), abs=1e-5)
    if mode == "global":
        assert torch.allclose(
            whole.objective.memory.features, parts.objective.memory.features, atol=1e-4
        )
        assert torch.equal(whole.objective.memory.image_ids, parts.objective.memory.image_ids)
    for one, other in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.allclose(one, other, atol=2e-4)


def test_learning_rate_is_absolute_or_scaled_and_decays_by_layer():
    scaled = TrainParams(batch_size=128, learning_rate=1e-3, learning_rate_batch=512)
    assert scaled.peak_learning_rate == pytest.approx(2.5e-4)
    assert TrainParams(batch_size=128, learning_rate=1e-3).peak_learning_rate == 1e-3
    settings = TrainParams(learning_rate=1e-3, layer_decay=0.5, epochs=4, warmup_epochs=0.0)
    model = build_model(NETWORK, 3, 0)
    optimizer = build_optimizer(model, torch.nn.Identity(), settings)
    build_schedule(optimizer, settings, 5).step_update(0)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    top, block1, block0, patches = (
        rate[id(p)]
        for p in (
            model.head.weight,
            model.blocks[1].mlp.fc1.weight,
            model.blocks[0].mlp.fc1.weight,
            model.patch_embed.proj.weight,
        )
    )
    assert top == pytest.approx(1e-3)
    assert block0 == pytest.approx(block1 / 2)
    assert patches == pytest.approx(block0 / 2)


def test_ema_follows_the_weights_and_bf16_stays_near_fp32():
    averaged = stepper(None, ema_decay=0.99)
    start = averaged.ema.module.head.weight.detach().clone()
    for step in range(4):
        averaged(batch_of(8), 0.0, step)
    own, mean = (m.head.weight.detach() for m in (averaged.model, averaged.ema.module))
    assert 0 < float((mean - start).norm()) < float((own - start).norm())
    fine, coarse = stepper(CONTRASTS["dense"]), stepper(CONTRASTS["dense"], precision="bf16")
    first, second = (s(batch_of(8), 0.5, 0) for s in (fine, coarse))
    assert float(first["loss"]) == pytest.approx(float(second["loss"]), rel=0.02)
    assert (
        fine.objective.memory.features.dtype
        == coarse.objective.memory.features.dtype
        == torch.float32
    )


def test_gradient_alignment_is_that_of_the_two_losses():
    learner = stepper(CONTRASTS["dense"])
    assert "gradient_cosine" not in learner(batch_of(8), 0.5, 0)
    drawn = learner.objective.generator.get_state()
    outcome = learner.score(batch_of(8), 0.5, diagnostics=True)[1].metrics
    shared = list(learner.model.blocks[-1].parameters())
    pulls = []
    for weight in (0.0, 1.0):
        learner.model.zero_grad()
        learner.objective.generator.set_state(drawn)
        loss, _ = learner.score(batch_of(8), weight)
        loss.backward()
        pulls.append(torch.cat([p.grad.flatten() for p in shared]))
    assert float(outcome["gradient_classification"]) == pytest.approx(
        float(pulls[0].norm()), rel=1e-3
    )
    assert float(outcome["gradient_contrast"]) == pytest.approx(float(pulls[1].norm()), rel=1e-3)
    assert float(outcome["gradient_cosine"]) == pytest.approx(
        float(F.cosine_similarity(*pulls, dim=0)), abs=1e-4
    )


def test_warnings_are_for_collapse_and_for_a_loss_at_chance():
    fine = {
        "rank_cls": 9.0,
        "similarity_cls": 0.4,
        "contrastive_loss": 3.0,
        "contrastive_chance": 4.0,
    }
    assert find_training_warnings(fine) == []
    assert "collapsed" in find_training_warnings(fine | {"rank_cls": 1.2})[0]
    assert "nothing was learned" in find_training_warnings(fine | {"contrastive_loss": 3.99})[0]
    assert find_training_warnings({"rank_cls": 9.0, "similarity_cls": 0.4}) == []


def test_advice_names_contrast_only_where_it_trains_something():
    collapsed = {"rank_cls": 1.0, "similarity_cls": 0.999}
    contrast = {"contrastive_loss": 4.0, "contrastive_chance": 4.0, "lambda_weight": 0.5}
    assert all("contrast." in text for text in find_training_warnings(collapsed | contrast))
    for row in (collapsed, collapsed | contrast | {"lambda_weight": 0.0}):
        (warning,) = find_training_warnings(row)
        assert "collapsed" in warning
        assert "train.learning_rate" in warning
        assert "contrast." not in warning


def test_steps_without_queries_log_no_loss_and_an_epoch_of_them_warns():
    unreachable = CONTRASTS["dense"].model_copy(
        update={"correspondence_filter": "threshold", "correspondence_threshold": 1.0}
    )
    learner = stepper(unreachable)
    outcomes = [learner(batch_of(8), 0.5, step, diagnostics=True) for step in range(2)]
    for outcome in outcomes:
        assert outcome["contrastive_loss"].isnan()
        assert outcome["contrastive_chance"].isnan()
        assert float(outcome["loss"]) == pytest.approx(float(outcome["classification_loss"]) / 2)
    row = compute_epoch_means(outcomes) | {"rank_cls": 9.0, "similarity_cls": 0.4}
    assert "no pair entered" in find_training_warnings(row)[0]
    some = compute_epoch_means([outcomes[0], outcomes[1] | {"contrastive_loss": torch.tensor(3.0)}])
    assert some["contrastive_loss"] == 3


def test_features_that_differ_only_by_rounding_have_collapsed():
    noise = torch.randn(128, 48, generator=torch.Generator().manual_seed(0))
    nearly_one = torch.ones(48) + 1e-6 * noise
    row = {
        "rank_cls": float(compute_effective_rank(nearly_one)),
        "similarity_cls": float(compute_mean_cosine(nearly_one)),
    }
    assert row["rank_cls"] > MIN_FEATURE_RANK  # so the rank alone does not suffice
    assert "collapsed" in find_training_warnings(row)[0]
    assert abs(float(compute_mean_cosine(noise))) < 0.05
    pair = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    assert float(compute_mean_cosine(pair)) == pytest.approx((2**-0.5 + 0 + 2**-0.5) / 3)


def test_epoch_means_skip_steps_without_diagnostics():
    learner = stepper(CONTRASTS["global"])
    outcomes = [learner(batch_of(8), 0.5, step, diagnostics=step == 1) for step in range(3)]
    row = compute_epoch_means(outcomes)
    assert row["gradient_cosine"] == pytest.approx(float(outcomes[1]["gradient_cosine"]))
    assert row["loss"] == pytest.approx(sum(float(o["loss"]) for o in outcomes) / 3)


def test_probe_separates_linearly_separable_features():
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(3, 5, generator=generator) * 4 + 100
    labels = torch.arange(90) % 3
    features = centres[labels] + torch.randn(90, 5, generator=generator)
    weight, bias = fit_linear_probe(features, labels, 3)
    assert ((features @ weight.T + bias).argmax(1) == labels).float().mean() > 0.95
    again = fit_linear_probe(features, labels, 3)
    assert torch.equal(weight, again[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns about itself
@pytest.mark.skipif(
    not shutil.which("g++"), reason="torch.compile needs a C++ compiler (g++) on a CPU"
)
def test_compiled_steps_equal_eager_steps():
    contrast = CONTRASTS["dense"].model_copy(update={"key_encoder": "momentum"})
    plain, compiled = stepper(contrast), stepper(contrast, compile=True)
    for step in range(3):
        one, other = (s(batch_of(8), 0.5, step, diagnostics=step == 1) for s in (plain, compiled))
        assert float(one["loss"]) == pytest.approx(float(other["loss"]), abs=1e-4)
        assert float(one["contrastive_loss"]) == pytest.approx(
            float(other["contrastive_loss"]), abs=1e-4
        )
    assert list(plain.model.state_dict()) == list(compiled.model.state_dict())
