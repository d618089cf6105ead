"""Records of a sweep: what its trials share, what one of them reads, and what it leaves."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from densecl.artifacts import Artifact, TrainPlan
from densecl.config.base import Mode
from densecl.config.mode_params import ModeSettings
from densecl.config.params import DataParams, NetworkParams
from densecl.config.sweep_params import Choice, SweepParams
from densecl.datasets.storage.remote_root import locate_indexed
from densecl.seeding import derive_seed


class SweepPlan(Artifact):
    """What all trials of a sweep share; written when it begins, never changed."""

    name: str
    sweep: SweepParams
    modes: tuple[Mode, ...]
    settings: ModeSettings  # before any trial changes them
    network: NetworkParams
    data: DataParams
    root: str  # of the training images; their manifest is a file beside this one
    # Of a root in a store.
    index: str | None = Field(default=None, exclude_if=lambda index: index is None)
    protocol: str
    preprocess: Literal["model", "as-is"] | None
    classes: tuple[str, ...]

    @property
    def images(self) -> Path:
        """The folder or archive that the training images are read from."""
        return locate_indexed(self.root, self.index or "")

    @property
    def epochs(self) -> int:
        """Epochs of a trial."""
        return self.sweep.epochs or self.settings.train.epochs

    @property
    def seed(self) -> int:
        """Of every trial's training: none of those that are compared afterwards."""
        return derive_seed(self.sweep.seed, "trial") % 2**31


class TrialPlan(Artifact):
    """One trial: its values, by dotted key, and the training that they make."""

    mode: Mode
    index: int  # 0: the values of the params
    values: dict[str, Choice]
    train: TrainPlan


class TrialResult(Artifact):
    """What a trial scored on the images that choose (select) and on those that confirm."""

    mode: Mode
    index: int
    values: dict[str, Choice]
    top1_select: float
    loss_select: float | None  # nats; None where the training did not finish
    top1_confirm: float
    loss_confirm: float | None
    images: tuple[int, int, int]  # that fit, select and confirm
    failure: str = ""  # why it did not finish: it counts, with a top-1 of 0
    code: str  # hash of the code that trained and scored it
