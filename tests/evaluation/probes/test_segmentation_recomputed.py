"""Segmentation of a model recomputed by a script of timm, numpy and scipy, from files alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.optimize import minimize
from timm.data import create_transform

from densecl.config.probe_params import SegmentationParams
from densecl.evaluation.probes import segmentation
from tests.evaluation.probes.transfer_project import (
    PREPROCESSING,
    build_context,
    colour_classes,
    list_pairs,
    write_pair,
)


def draw(root: Path, count: int, seed: int) -> None:
    """Two rectangles in images of 44 x 40 px, of which the middle is seen."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        mask = np.zeros((40, 44), np.uint8)
        for label in (1, 2):
            y, x = rng.integers(0, 24, 2)
            mask[y : y + 16, x : x + 20] = label
        write_pair(root, f"{number:02d}", colour_classes(mask), mask)


def read(model, root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [n, 16, E] after the last norm, and labels [n, 32, 32]."""
    settings = PREPROCESSING.model_dump(exclude={"rule", "border"})
    for_images = create_transform(**settings, is_training=False)
    nearest = settings | {"interpolation": "nearest"}
    for_masks = create_transform(**nearest, is_training=False, normalize=False)
    files = sorted((root / "images").iterdir())
    images = torch.stack([for_images(Image.open(path).convert("RGB")) for path in files])
    masks = [for_masks(Image.open(root / "masks" / path.name))[0].numpy() for path in files]
    with torch.inference_mode():
        return model.forward_features(images)[:, 1:].double().numpy(), np.stack(masks)


def fit(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
        w, b = values[:-3].reshape(3, -1), values[-3:]
        scores = x @ w.T + b
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        loss = -np.log(p[np.arange(len(y)), y]).mean() + 1e-4 * (w**2).sum()
        p[np.arange(len(y)), y] -= 1
        return loss, np.concatenate([(p.T @ x / len(y) + 2e-4 * w).ravel(), p.mean(0)])

    options = {"maxiter": 5000, "maxfun": 10000, "ftol": 1e-15, "gtol": 1e-9}
    start = np.zeros(3 * x.shape[1] + 3)
    found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
    return found[:-3].reshape(3, -1), found[-3:]


def score(values: np.ndarray, labels: np.ndarray) -> float:
    """mIoU of scores of patches [n, 16, 3]."""
    maps = torch.from_numpy(values).float().transpose(1, 2).unflatten(2, (4, 4))
    predicted = F.interpolate(maps, size=(32, 32), mode="bilinear").argmax(1).numpy()
    pairs = [(predicted == c, labels == c) for c in range(3)]
    return float(np.mean([(a & b).sum() / (a | b).sum() for a, b in pairs]))


def test_a_script_finds_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(Path("fit"), 24, seed=0)
    draw(Path("test"), 12, seed=1)
    entries = {name: list_pairs(name, tmp_path / name) for name in ("fit", "test")}
    context = build_context(**entries)
    result = segmentation.measure(
        context, SegmentationParams(fit="fit", test="test", neighbours=5)
    ).measures
    x, masks = read(context.model, Path("fit"))
    asked, labels = read(context.model, Path("test"))
    cells = masks.reshape(24, 4, 8, 4, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    y = np.array([np.bincount(cell, minlength=3).argmax() for cell in cells])
    x = x.reshape(len(y), -1)
    mean, std = x.mean(0), x.std(0)
    w, b = fit((x - mean) / std, y)
    assert result["linear/last"].value == pytest.approx(
        score((asked - mean) / std @ w.T + b, labels),
        abs=4e-4,  # some of the 12,288 pixels, where two classes are equal but for rounding
    )
    cosines = (asked / np.linalg.norm(asked, axis=2, keepdims=True)) @ (
        x / np.linalg.norm(x, axis=1, keepdims=True)
    ).T
    nearest = y[np.argsort(-cosines, axis=2)[..., :5]]
    votes = (nearest[..., None] == np.arange(3)).sum(2).astype(float)
    assert result["knn/last"].value == pytest.approx(score(votes, labels), abs=1e-4)
    counts = np.bincount(masks.ravel(), minlength=3)
    constant = (labels == counts.argmax()).mean() / 3
    assert result["linear/last"].chance == pytest.approx(constant, abs=1e-12)
    assert result["linear/last"].value > constant + 0.05  # both scripts found something
