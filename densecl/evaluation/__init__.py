"""Evaluation of one model on one dataset: protocols, predictions, metrics, calibration.

The public names are imported on first use: `protocols` is read by code that needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densecl.evaluation.calibration import expected_calibration_error, rms_calibration_error
    from densecl.evaluation.effective_robustness import compute_expected_accuracy
    from densecl.evaluation.metrics import compute_effective_robustness, compute_metrics
    from densecl.evaluation.predict import predict_images, score_logits
    from densecl.evaluation.protocols import PROTOCOLS, EvaluationProtocol
    from densecl.evaluation.scoring import prepare_scoring

__all__ = [
    "PROTOCOLS",
    "EvaluationProtocol",
    "compute_effective_robustness",
    "compute_expected_accuracy",
    "compute_metrics",
    "expected_calibration_error",
    "predict_images",
    "prepare_scoring",
    "rms_calibration_error",
    "score_logits",
]

_MODULES = {
    "PROTOCOLS": "protocols",
    "EvaluationProtocol": "protocols",
    "compute_effective_robustness": "metrics",
    "compute_expected_accuracy": "effective_robustness",
    "compute_metrics": "metrics",
    "expected_calibration_error": "calibration",
    "predict_images": "predict",
    "prepare_scoring": "scoring",
    "rms_calibration_error": "calibration",
    "score_logits": "predict",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
