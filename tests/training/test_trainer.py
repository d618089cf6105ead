"""The training loop on a learnable toy dataset, tested through the files that it writes."""

import json
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from hypothesis import given, strategies as st
from PIL import Image

from densecl import paths
from densecl.artifacts import TrainPlan
from densecl.config.params import (
    DataParams,
    DenseContrastParams,
    GlobalContrastParams,
    NetworkParams,
    TrainParams,
    ViewParams,
)
from densecl.contrast import NewKeys, build_objective
from densecl.contrast.build import compute_max_key_age, limit_queue_size
from densecl.datasets.storage.usable_images import ImageSet
from densecl.datasets.views.batch import ViewBatch
from densecl.datasets.views.erasing import draw_rectangles
from densecl.evaluation.predict import predict_images
from densecl.evaluation.validator import build_validator
from densecl.metrics import compute_effective_rank, is_topk_correct
from densecl.network.exported import load_exported_model
from densecl.network.preprocessing import (
    Preprocessing,
    build_evaluation_transform,
    resolve_preprocessing,
)
from densecl.network.vit import Backbone, build_model
from densecl.training import trainer
from densecl.training.optim import build_optimizer, build_schedule
from densecl.training.step import TrainStep
from densecl.training.train import train
from tests.conftest import WNIDS, draw_set

NETWORK = NetworkParams(
    model_name="vit_tiny_patch16_224",
    model_args={"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
)
DATA = DataParams(view1=ViewParams(scale=(0.5, 1.0)), view2=ViewParams(scale=(0.5, 1.0), blur=0.2))
CONTRASTS = {
    "dense": DenseContrastParams(queue_size=256, patches_per_image=8, dense_dim=16),
    "global": GlobalContrastParams(queue_size=64),
    "none": None,
}


def plan(mode: str, **changed: object) -> TrainPlan:
    settings = {"batch_size": 8, "epochs": 6, "learning_rate": 3e-3, "warmup_epochs": 1.0} | changed
    return TrainPlan(
        mode=mode,
        network=NETWORK,
        data=DATA,
        train=TrainParams(**settings),
        contrast=CONTRASTS[mode],
    )


def images(root: Path) -> ImageSet:
    files = sorted(p.relative_to(root).as_posix() for p in root.glob("*/*"))
    rows = [
        {"image_id": p, "path": p, "label": WNIDS.index(p.split("/")[0]), "sha256": ""}
        for p in files
    ]
    return ImageSet(pd.DataFrame(rows), root)


def validator(place: Path) -> Callable[[Backbone], dict[str, float]]:
    return build_validator({"imagenet": images(place / "val")}, WNIDS, 8)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DENSECL_WORKERS", "0")
    monkeypatch.setattr(trainer, "count_workers", lambda: 0)
    monkeypatch.setattr("densecl.monitoring.monitor.Monitor._call_mlflow", lambda self, call: None)
    draw_set(tmp_path / "train", 8)
    draw_set(tmp_path / "val", 4, seed=1)
    return tmp_path


def run(place: Path, name: str, of: TrainPlan) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "contrast.queue_size")
        train(
            of,
            0,
            images(place / "train"),
            list(WNIDS),
            validator(place),
            place / name / "model",
            place / name / "training",
        )
    return pd.read_csv(place / name / "training" / "history.csv")


def test_steps_get_views_with_the_rectangles_of_their_images_and_epoch(workplace, monkeypatch):
    """Of the images' names, so that another order or number of ranks moves none."""
    seen = []

    def record(step, batch, *arguments, **named):
        seen.append(batch)
        return call(step, batch, *arguments, **named)

    call = trainer.TrainStep.__call__
    monkeypatch.setattr(trainer.TrainStep, "__call__", record)
    whole, erased = (
        run(workplace, name, plan("none", epochs=2, **erasing))
        for name, erasing in (
            ("whole", {}),
            ("erased", {"random_erasing": 1.0, "random_erasing_count": 2}),
        )
    )
    assert not whole.equals(erased)
    half = len(seen) // 2
    color = torch.tensor([round(255 * mean) for mean in (0.5, 0.5, 0.5)], dtype=torch.uint8)
    names = list(images(workplace / "train").frame["image_id"])
    for number, (before, after) in enumerate(zip(seen[:half], seen[half:], strict=True)):
        assert torch.equal(before.image_ids, after.image_ids)
        ids = [names[row] for row in after.image_ids.tolist()]
        size = tuple(after.view1.shape[2:])
        rectangles = draw_rectangles(ids, size, 1.0, 2, seed=0, epoch=number // (half // 2))
        for place, corners in enumerate(rectangles[0].tolist()):
            view = before.view1[place].clone()
            for top, left, bottom, right in corners:
                view[:, top:bottom, left:right] = color[:, None, None]
            assert torch.equal(after.view1[place], view)


@pytest.mark.parametrize("mode", ["dense", "global", "none"])
def test_each_mode_learns_and_its_export_is_a_timm_model(workplace, mode):
    history = run(workplace, mode, plan(mode, epochs=10))
    assert history["classification_loss"].iloc[-1] < 0.7 * history["classification_loss"].iloc[0]
    assert history["top1/imagenet"].iloc[-1] >= 0.9
    assert ("contrastive_loss" in history) == (mode != "none")
    if mode != "none":
        assert history["contrastive_loss"].iloc[-1] < history["contrastive_chance"].iloc[-1]
    config = json.loads((workplace / mode / "model" / "config.json").read_text())
    assert config["classes"] == list(WNIDS)
    model = timm.create_model(
        config["architecture"],
        num_classes=config["num_classes"],
        checkpoint_path=str(workplace / mode / "model" / "model.safetensors"),
        **config["model_args"],
    ).eval()
    transform = build_evaluation_transform(Preprocessing(rule="model", **config["pretrained_cfg"]))
    val = images(workplace / "val")
    batch = torch.stack(
        [transform(Image.open(val.root / p).convert("RGB")) for p in val.frame["path"]]
    )
    with torch.no_grad():
        predicted = model(batch).argmax(1)
    rows = predict_images(model, val.frame, val.root, resolve_preprocessing(model), [0, 1, 2], 12)
    assert rows["prediction"].tolist() == predicted.tolist()
    assert not (workplace / paths.CHECKPOINTS / config["fingerprint"]).exists()


def test_modes_share_initial_weights():
    starts = [build_model(NETWORK, 3, 0).state_dict() for _ in range(2)]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not torch.equal(
        build_model(NETWORK, 3, 1).state_dict()["head.weight"], starts[0]["head.weight"]
    )


def batch_of(count: int) -> ViewBatch:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, count, 3, 32, 32), generator=rng, dtype=torch.uint8)
    return ViewBatch(
        pixels[0],
        pixels[1],
        torch.arange(count) % 3,
        torch.arange(count),
        torch.zeros(count, 5),
        torch.zeros(count, 5),
    )


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("mode", ["dense", "global"])
def test_lambda_zero_equals_mode_none_bit_for_bit(mode, clip):
    after = []
    for contrast in (CONTRASTS[mode], None):
        model = build_model(NETWORK, 3, 0)
        objective = build_objective(contrast, model, 32, 0, torch.Generator().manual_seed(0))
        settings = TrainParams(learning_rate=1e-3, grad_clip=clip)
        stepper = TrainStep(model, objective, resolve_preprocessing(model), settings)
        for step in range(3):
            stepper(batch_of(6), 0.0, step)
        after.append(model.state_dict())
    assert all(torch.equal(after[0][name], after[1][name]) for name in after[0])


def test_schedule_warms_up_and_ends_near_zero():
    model = build_model(NETWORK, 3, 0)
    settings = TrainParams(learning_rate=1e-3, epochs=10, warmup_epochs=2.0)
    optimizer = build_optimizer(model, torch.nn.Identity(), settings)
    schedule, rates = build_schedule(optimizer, settings, 5), []
    for step in range(50):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 10
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 1e-5


def test_memory_larger_than_half_an_epoch_is_cut_and_recorded(workplace):
    with pytest.warns(UserWarning, match=r"queue_size: 65536 .* cut to 96"):
        train(
            plan("dense", epochs=1, warmup_epochs=0.0).model_copy(
                update={"contrast": DenseContrastParams(patches_per_image=8, dense_dim=16)}
            ),
            0,
            images(workplace / "train"),
            list(WNIDS),
            lambda _: {},
            workplace / "m",
            workplace / "t",
        )
    assert (
        json.loads((workplace / "t" / "training.json").read_text())["queue_size_effective"] == 96
    )  # 24 images x 8 / 2


@pytest.mark.parametrize("filter_", ["mutual", "threshold", "geometric"])
def test_a_filter_leaves_no_keys_older_than_half_an_epoch(filter_):
    """Half an epoch of 45 images in batches of 8 is 3 steps; a filter may leave few keys in it."""
    settings = {"queue_size": 10**6, "patches_per_image": 8, "dense_dim": 16}
    option = "correspondence_features" if filter_ == "geometric" else "correspondence_filter"
    contrast = DenseContrastParams(**settings, **{option: filter_})
    age = compute_max_key_age(contrast, 45, 8)
    assert age == 3
    model = build_model(NETWORK, 3, 0)
    objective = build_objective(contrast, model, 45 * 8 // 2, 0, torch.Generator(), age)
    for step in range(20):
        keys = torch.ones(step % 3, 16)
        ids = torch.full((len(keys),), step)
        objective.update_after_step(model, NewKeys(keys, ids, ids), step, 0.5)
        expected = [s for s in range(max(0, step - 2), step + 1) for _ in range(s % 3)]
        assert objective.memory.steps.tolist() == expected


@given(
    images=st.integers(1, 60),
    batch=st.integers(1, 60),
    memory_per_image=st.none() | st.integers(1, 9),
    symmetric=st.booleans(),
)
def test_without_a_filter_the_size_bounds_the_age(images, batch, memory_per_image, symmetric):
    contrast = DenseContrastParams(
        queue_size=10**6,
        patches_per_image=8,
        memory_per_image=memory_per_image,
        symmetric=symmetric,
    )
    assert compute_max_key_age(contrast, images, batch) is None
    filtered = contrast.model_copy(update={"correspondence_filter": "mutual"})
    batch = min(batch, images)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "contrast.queue_size")
        size = limit_queue_size(contrast, images, 16)
    keys_per_step = batch * (2 if symmetric else 1) * min(8, memory_per_image or 8)
    oldest = math.ceil(size / keys_per_step) - 1  # steps behind the newest, when full
    assert oldest < compute_max_key_age(filtered, images, batch)


def test_non_finite_loss_stops_training_with_advice(workplace):
    for mode, names_contrast in (("none", False), ("global", True)):
        broken = plan(mode).model_copy(update={"network": broken_start(workplace)})
        with pytest.raises(
            trainer.TrainingError, match=r"epoch 0, step 0.*learning_rate"
        ) as failure:
            run(workplace, "bad", broken)
        assert ("contrast." in str(failure.value)) == names_contrast


def broken_start(place: Path) -> NetworkParams:
    from safetensors.torch import save_file

    state = build_model(NETWORK, 3, 0).state_dict()
    save_file(
        {
            n: torch.full_like(v, np.nan) if n == "cls_token" else v.contiguous()
            for n, v in state.items()
        },
        place / "nan.safetensors",
    )
    return NETWORK.model_copy(update={"checkpoint": str(place / "nan.safetensors")})


def test_effective_rank_counts_directions():
    basis = torch.eye(6)[:4]
    assert compute_effective_rank(torch.cat([basis, -basis])).item() == pytest.approx(4, rel=1e-4)
    assert compute_effective_rank(torch.ones(5, 6)).item() == pytest.approx(1, rel=1e-4)


def test_topk_correct_counts_labels_among_the_largest():
    logits = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    assert is_topk_correct(logits, torch.tensor([1, 0]), 1).tolist() == [False, False]
    assert is_topk_correct(logits, torch.tensor([1, 0]), 2).tolist() == [True, False]
    assert is_topk_correct(logits, torch.tensor([1, 0]), 9).tolist() == [True, True]


def test_lambda_one_exports_a_linear_probe_on_frozen_features(workplace):
    alone = GlobalContrastParams(queue_size=64, lambda_weight=1.0)
    history = run(
        workplace, "alone", plan("global", epochs=2).model_copy(update={"contrast": alone})
    )
    assert "top1/imagenet" not in history  # there is no classifier to validate on the way
    config = json.loads((workplace / "alone/model/config.json").read_text())
    assert config["classifier"] == "linear probe"
    model = timm.create_model(
        config["architecture"],
        num_classes=3,
        checkpoint_path=str(workplace / "alone/model/model.safetensors"),
        **config["model_args"],
    )
    val = images(workplace / "val")
    assert (
        predict_images(model, val.frame, val.root, resolve_preprocessing(model), [0, 1, 2], 12)[
            "correct"
        ].mean()
        > 0.6
    )


@pytest.mark.parametrize("name", ["beit_base_patch16_224", "beitv2_base_patch16_224"])
def test_beit_trains_with_layer_decay_ema_drop_path_and_momentum_keys(workplace, name):
    args = NETWORK.model_args | {"global_pool": "token"}
    settings = {"layer_decay": 0.8, "ema_decay": 0.9, "drop_path": 0.1, "epochs": 2}
    of = plan("dense", **settings).model_copy(
        update={
            "network": NetworkParams(model_name=name, model_args=args),
            "contrast": CONTRASTS["dense"].model_copy(update={"key_encoder": "momentum"}),
        }
    )
    history = run(workplace, "beit", of)
    assert history["loss"].notna().all()
    assert history["match/before_last/within1"].notna().all()
    assert (history["top1/imagenet"] <= history["top5/imagenet"]).all()
    model, _ = load_exported_model(workplace / "beit" / "model")
    val = images(workplace / "val")
    rows = predict_images(model, val.frame, val.root, resolve_preprocessing(model), [0, 1, 2], 8)
    assert rows["correct"].mean() == history["top1/imagenet"].iloc[-1]
