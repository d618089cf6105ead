"""Top-1 during training: that of the prediction tables, from images that are decoded once."""

import shutil

import pandas as pd
import pytest
import torch

from densecl.config.params import NetworkParams
from densecl.datasets.storage.usable_images import SCORING_COLUMNS, ImageSet
from densecl.errors import DataError
from densecl.evaluation import validator
from densecl.evaluation.predict import predict_images
from densecl.evaluation.protocols import PROTOCOLS
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import Backbone, build_model
from tests.conftest import WNIDS, draw_set

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


@pytest.fixture(autouse=True)
def no_workers(monkeypatch):
    monkeypatch.setenv("DENSECL_WORKERS", "0")


@pytest.fixture
def datasets(tmp_path) -> dict[str, ImageSet]:
    """Two datasets, of 12 and of 6 images; the second one lacks a class."""
    sets = {}
    for name, folders, per_class in (("imagenet", WNIDS, 4), ("sketch", WNIDS[1:], 3)):
        root = draw_set(tmp_path / name, per_class, 40, folders=folders)
        paths = sorted(p.relative_to(root).as_posix() for p in root.glob("*/*"))
        labels = [WNIDS.index(path.split("/")[0]) for path in paths]
        sets[name] = ImageSet(
            pd.DataFrame({"image_id": paths, "path": paths, "label": labels}), root
        )
    return sets


def build_random_model(seed: int = 0) -> Backbone:
    model = build_model(
        NetworkParams(model_name="vit_tiny_patch16_224", model_args=SMALL), len(WNIDS), seed
    )
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(seed))
    return model


def compute_expected(model: Backbone, name: str, images: ImageSet) -> dict[str, float]:
    classes = sorted(images.frame["label"].unique().tolist())
    settings = resolve_preprocessing(model)
    rows = predict_images(model, images.frame, images.root, settings, classes, 5)
    return {
        f"top1/{name}": float(rows["correct"].mean()),
        f"top5/{name}": float(rows["correct5"].mean()),
    }


@pytest.mark.parametrize("keep_images", [False, True])
def test_accuracies_are_those_of_the_prediction_table_for_every_model(datasets, keep_images):
    compute_accuracies = validator.build_validator(datasets, WNIDS, 5, keep_images)
    for seed in range(4):
        model = build_random_model(seed)
        expected = [compute_expected(model, name, images) for name, images in datasets.items()]
        assert compute_accuracies(model) == expected[0] | expected[1]


def test_kept_images_are_read_once(datasets):
    compute_accuracies = validator.build_validator(datasets, WNIDS, 5, keep_images=True)
    model = build_random_model()
    first = compute_accuracies(model)
    for images in datasets.values():
        shutil.rmtree(images.root)
    assert compute_accuracies(model) == first


def test_images_beyond_the_budget_are_read_each_time(datasets, monkeypatch):
    monkeypatch.setattr(validator, "MAX_KEPT_BYTES", 12 * 3 * 32 * 32)  # the first dataset, exactly
    compute_accuracies = validator.build_validator(datasets, WNIDS, 5, keep_images=True)
    model = build_random_model()
    first = compute_accuracies(model)
    shutil.rmtree(datasets["imagenet"].root)
    assert compute_accuracies(model) == first
    shutil.rmtree(datasets["sketch"].root)
    with pytest.raises(DataError):
        compute_accuracies(model)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("classes", [(), WNIDS[:2]])
def test_the_columns_that_a_training_reads_are_all_that_a_protocol_needs(
    datasets, protocol, classes
):
    frame = datasets["imagenet"].frame.assign(
        wnid=[WNIDS[label] for label in datasets["imagenet"].frame["label"]], width=40, height=40
    )
    images = ImageSet(
        frame[list(SCORING_COLUMNS)], datasets["imagenet"].root, None, protocol, tuple(classes)
    )
    found = validator.build_validator({"imagenet": images}, WNIDS, 5)(build_random_model())
    assert 0 <= found["top1/imagenet"] <= found["top5/imagenet"] <= 1
