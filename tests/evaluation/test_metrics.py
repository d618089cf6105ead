"""Figures of a cell by hand, and against torchmetrics."""

from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy

from densecl.artifacts import MatchedControl
from densecl.evaluation.effective_robustness import NotApplicable
from densecl.evaluation.metrics import (
    compute_dataset_metrics,
    compute_metrics,
    compute_rendition_accuracy,
    compute_shape_bias,
)
from densecl.evaluation.predict import score_logits

IMAGENET = sorted(
    (files("timm.data") / "_info" / "imagenet_synsets.txt").read_text(encoding="utf-8").split()
)
CONTROL = MatchedControl(dataset="imagenet", images=10, top1=0.8, top5=0.9, predictions="x")


def cues(*rows: tuple[str, int, int]) -> pd.DataFrame:
    """Predictions of (file name, label, prediction)."""
    names, labels, predictions = zip(*rows, strict=True)
    table = pd.DataFrame(
        {"image_id": [f"s/n/{name}" for name in names], "label": labels, "prediction": predictions}
    )
    return table.assign(correct=table["label"] == table["prediction"], correct_unmasked=False)


def test_figures_agree_with_torchmetrics_and_masking_never_hurts():
    generator = torch.Generator().manual_seed(0)
    logits, labels = (
        torch.randn(600, 16, generator=generator),
        torch.randint(0, 7, (600,), generator=generator),
    )
    rows = score_logits(logits, labels, list(range(7)))
    found = compute_metrics(rows)
    masked = logits[:, :7]
    for k, name in ((1, "top1"), (5, "top5")):
        theirs = multiclass_accuracy(masked, labels, num_classes=7, top_k=k, average="micro")
        assert found[name] == pytest.approx(float(theirs), abs=1e-7)
        theirs = multiclass_accuracy(logits, labels, num_classes=16, top_k=k, average="micro")
        assert found[f"{name}_unmasked"] == pytest.approx(float(theirs), abs=1e-7)
    assert found["macro_top1"] == pytest.approx(
        float(multiclass_accuracy(masked, labels, num_classes=7, average="macro")), abs=1e-7
    )
    assert found["nll"] == pytest.approx(
        float(torch.nn.functional.cross_entropy(masked, labels)), abs=1e-6
    )
    assert (rows["correct"] >= rows["correct_unmasked"]).all()
    assert (rows["correct5"] >= rows["correct5_unmasked"]).all()
    everything = score_logits(logits, labels, list(range(16)))
    assert (everything["prediction"] == everything["prediction_unmasked"]).all()
    assert (everything["confidence"] == everything["confidence_unmasked"]).all()


def test_shape_bias_by_hand():
    """cat is class 3, dog class 5; oven is no class of the set."""
    rows = cues(
        ("cat1-dog2.png", 3, 3),  # shape
        ("cat2-dog1.png", 3, 5),  # texture
        ("dog1-cat3.png", 5, 5),  # shape
        ("dog2-cat1.png", 5, 4),  # neither: no decision
        ("dog3-oven1.png", 5, 5),  # left out
        ("cat4-cat9.png", 3, 3),  # one class for both: left out
    )
    found = compute_shape_bias(rows)
    assert (found.value, found.shape, found.texture, found.images, found.left_out) == (
        2 / 3,
        2,
        1,
        4,
        2,
    )


def test_shape_bias_of_groups_finds_cues_by_the_groups_names():
    """No image has the shape of an oven, but it is a group; a knife is none."""
    rows = cues(
        ("cat1-oven2.png", 1, 4),  # texture
        ("cat2-dog1.png", 1, 1),  # shape
        ("dog1-oven1.png", 2, -1),  # a class of no group: no decision
        ("dog2-knife1.png", 2, 2),  # left out
    )
    found = compute_shape_bias(rows, {"cat": 1, "dog": 2, "oven": 4})
    assert (found.value, found.shape, found.texture) == (1 / 2, 1, 1)
    assert (found.images, found.left_out) == (3, 1)


def test_file_names_without_a_cue_omit_the_metric():
    with pytest.raises(
        NotApplicable,
        match="file names are not <shape><n>-<texture><m>: s/n/ILSVRC2012_val_00000001",
    ):
        compute_shape_bias(cues(("ILSVRC2012_val_00000001.png", 0, 0)))
    with pytest.raises(NotApplicable, match="shape cat occurs in two classes"):
        compute_shape_bias(cues(("cat1-dog1.png", 0, 0), ("cat2-dog1.png", 1, 0)))
    found = compute_shape_bias(cues(("cat1-dog1.png", 0, 7), ("dog1-cat1.png", 1, 7)))
    assert found.value is None


def test_renditions_by_hand():
    rows = cues(
        ("art_0.jpg", 0, 0), ("art_1.jpg", 0, 1), ("toy_0.jpg", 1, 1), ("video_game_7.jpg", 1, 1)
    )
    assert {k: (g.images, g.top1) for k, g in compute_rendition_accuracy(rows).items()} == {
        "art": (2, 0.5),
        "toy": (1, 1.0),
        "video": (1, 1.0),
    }
    with pytest.raises(NotApplicable, match=r"file names are not <rendition>_<n>: s/n/0\.jpg"):
        compute_rendition_accuracy(cues(("0.jpg", 0, 0)))


def test_effective_robustness_is_there_at_imagenet_scale_only():
    rows = cues(("a.jpg", 0, 0), ("b.jpg", 1, 0))
    expected = 1 / (1 + np.exp(-(1.071 * np.log(0.8 / 0.2) - 2.370)))
    found = compute_dataset_metrics(rows, "sketch", IMAGENET, CONTROL)
    assert found["effective_robustness"] == pytest.approx(0.5 - expected)
    assert found["relative_accuracy"] == pytest.approx(0.5 / 0.8)
    assert found["left_out"] == {}
    elsewhere = compute_dataset_metrics(rows, "sketch", ["n1", "n2"], CONTROL)
    assert elsewhere["effective_robustness"] is None
    assert "ImageNet-1k" in elsewhere["left_out"]["effective_robustness"]
    assert {wnid: g.top1 for wnid, g in elsewhere["per_class"].items()} == {"n1": 1.0, "n2": 0.0}
