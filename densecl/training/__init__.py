"""Training: the loop (`trainer`), one step (`step`), and the whole run (`train`).

The public names are imported on first use: `fingerprint` is read by code that needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from densecl.network.logistic_regression import fit_linear_probe
    from densecl.training.optim import build_optimizer, build_schedule
    from densecl.training.step import TrainStep
    from densecl.training.train_state import TrainingError
    from densecl.training.trainer import Trainer, TrainingSpec

__all__ = [
    "TrainStep",
    "Trainer",
    "TrainingError",
    "TrainingSpec",
    "build_optimizer",
    "build_schedule",
    "fit_linear_probe",
]

_MODULES = {
    "TrainStep": "step",
    "Trainer": "trainer",
    "TrainingError": "train_state",
    "TrainingSpec": "trainer",
    "build_optimizer": "optim",
    "build_schedule": "optim",
    "fit_linear_probe": "linear_probe",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
