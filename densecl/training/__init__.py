"""Training: the loop (`trainer`), one step (`step`), and the whole run (`train`)."""

from densecl.training.linear_probe import fit_linear_probe
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
