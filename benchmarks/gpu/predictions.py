"""The evaluation's predictions on the device against those on the CPU."""

import tempfile
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import torch

from benchmarks.gpu.loader import draw_photographs
from benchmarks.measure import BenchmarkRow
from benchmarks.steps import StepSetup
from densecl.network.preprocessing import resolve_preprocessing
from densecl.network.vit import build_model
from densecl.runtime.hardware import get_device

CLASSES = 12


def measure_predictions(setup: StepSetup, images: int, pixels: int) -> list[BenchmarkRow]:
    """Predictions that differ, and the largest difference of a probability."""
    from densecl.evaluation.predict import predict_images

    model = build_model(setup.network, CLASSES, 0)
    with torch.no_grad():
        model.get_classifier().weight.mul_(50)  # so that the answers differ from image to image
    found: dict[str, pd.DataFrame] = {}

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        frame = draw_photographs(folder, images, pixels)

        def predict(device: str) -> None:
            with patch("densecl.evaluation.predict.get_device", lambda: torch.device(device)):
                found[device] = predict_images(
                    model,
                    frame,
                    folder,
                    resolve_preprocessing(model),
                    list(range(CLASSES)),
                    setup.batch,
                )

        for device in (get_device().type, "cpu"):
            predict(device)
    of = f"predictions of {images:,} photographs of {pixels} px, {setup.model}"
    here, there = found[get_device().type], found["cpu"]
    differing = int((here["prediction"] != there["prediction"]).sum())
    error = float((here["p_true"] - there["p_true"]).abs().max())
    kinds = here["prediction"].nunique()
    return [
        BenchmarkRow(
            "PRED", f"{of}: that differ", str(differing), f"CPU, {kinds} classes", "-", "0"
        ),
        BenchmarkRow(
            "PRED", f"{of}: largest difference of p_true", f"{error:.1e}", "CPU", "-", "≤ 1e-04"
        ),
    ]
