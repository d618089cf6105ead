"""Artifacts that stages exchange as JSON; fractions are in [0, 1]."""

import json
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from densecl.config.evaluation_params import Combination, OutsideRule
from densecl.config.params import (
    MODES,
    CostParams,
    DataParams,
    DatasetParams,
    DenseContrastParams,
    GlobalContrastParams,
    Mode,
    NetworkParams,
    RenderParams,
    ReportParams,
    TrainParams,
    ValidateParams,
)
from densecl.config.probe_params import ProbesParams, TransferParams
from densecl.config.titles import get_title
from densecl.errors import DataError
from densecl.runtime.atomic_files import open_atomic_file
from densecl.runtime.cli import shorten_line

T = TypeVar("T", bound=BaseModel)


class Artifact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassGroups(Artifact):
    """Groups of classes that are the labels of a dataset, and how they are scored."""

    members: dict[str, tuple[str, ...]]  # group -> wnids; its position is its label
    combine: Combination
    outside: OutsideRule
    published: str = ""  # name of the list; "" if it is the user's own


class RenderPlan(Artifact):
    """What render reads of an entry of `render`."""

    settings: RenderParams


class DatasetPlan(Artifact):
    """What prepare and evaluate read about one dataset."""

    name: str
    dataset: DatasetParams
    train: DatasetParams  # the training dataset, whose classes are the class list
    preprocess: Literal["model", "as-is"] | None  # None: the protocol's rule
    protocol: str  # row of densecl/evaluation/protocols.py
    classes: tuple[str, ...]  # wnids that are scored; empty: those of the protocol
    groups: ClassGroups | None = None  # None: labels are classes
    optional: bool  # if it is missing or fails, the reason is reported and the pipeline continues
    exif: Literal["ignore", "apply"] = "ignore"


class ValidatePlan(Artifact):
    datasets: dict[str, DatasetParams]
    optional: tuple[str, ...]  # datasets whose failure does not stop the pipeline
    groups: dict[str, tuple[str, ...]] = {}  # names, of the datasets that are labelled by groups
    values: ValidateParams


class TrainPlan(Artifact):
    mode: str  # its name
    # None, and not in the file, where the mode is one of the three and no variant of them.
    variant_of: Mode | None = Field(default=None, exclude_if=lambda base: base is None)
    network: NetworkParams
    data: DataParams
    train: TrainParams
    # Read from JSON, a mapping is the first of the two that has all of its keys.
    contrast: GlobalContrastParams | DenseContrastParams | None

    @property
    def base(self) -> str:
        """The mode whose objective is trained."""
        return self.variant_of or self.mode

    @model_validator(mode="after")
    def _check_contrast(self) -> Self:
        types = {"none": type(None), "global": GlobalContrastParams, "dense": DenseContrastParams}
        if self.base not in types:
            raise ValueError(f"mode is {self.mode}, expected {', '.join(MODES)} or variant_of")
        if type(self.contrast) is not types[self.base]:
            raise ValueError(f"contrast has the keys of another mode than {self.base}")
        return self


class ExecutionPlan(Artifact):
    """How trainings and evaluations are executed; no stage depends on it."""

    checkpoint_minutes: float
    processes: int
    parallel: Literal["ddp", "fsdp"]
    checkpoint_activations: bool
    cell_cache: str | None


class CostPlan(Artifact):
    """What shapes a training step; keys that do not have their defaults."""

    modes: tuple[str, ...]
    network: NetworkParams
    train: TrainParams
    # Of modes whose steps differ from those of the others; their batches are equally large.
    train_by_mode: dict[str, TrainParams] = Field(default={}, exclude_if=lambda plans: not plans)
    contrast: dict[str, GlobalContrastParams | DenseContrastParams | None]
    processes: int  # that share a batch in training; one of them is measured
    checkpoint_activations: bool = False
    budget: CostParams

    def get_train(self, mode: str) -> TrainParams:
        """What shapes the step of a mode."""
        return self.train_by_mode.get(mode, self.train)


class TransferPlan(Artifact):
    """What the listing and the probes of one entry of `transfer` read."""

    name: str
    images: TransferParams
    optional: bool  # if it is missing, the reason is reported and the pipeline continues


class TransferIndex(Artifact):
    """The entries of `transfer`."""

    names: tuple[str, ...]


class EvaluatePlan(Artifact):
    """What the evaluation of one model on all datasets, and its probes, read."""

    batch_size: int
    datasets: tuple[DatasetPlan, ...]
    probes: ProbesParams = ProbesParams()
    training: DatasetPlan | None = None  # the training images, for probes that fit on them
    transfer: dict[str, TransferParams] = {}  # those that probes name
    optional: bool = False  # a probe that fails is reported and the pipeline continues


class ReportPlan(Artifact):
    """Every cell that the tables must have, whether its file exists or not."""

    modes: tuple[str, ...]
    # Base of each of them that is a variant; not in the file where none is.
    variants: dict[str, Mode] = Field(default={}, exclude_if=lambda bases: not bases)
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    protocols: dict[str, str]  # dataset -> row of densecl/evaluation/protocols.py
    probes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()  # names of evaluate.models
    rendered: tuple[str, ...]
    values: ReportParams
    params: dict[str, Any]

    @property
    def titles(self) -> dict[str, str]:
        """Display name of each dataset."""
        return {name: get_title(self.params, name) for name in self.datasets}

    @property
    def main_modes(self) -> tuple[str, ...]:
        """Those that are no variants: the first screen compares them."""
        return tuple(mode for mode in self.modes if mode not in self.variants)


class SkippedFiles(Artifact):
    """Files of a dataset that are no rows of its manifest: written by `prepare`."""

    dataset: str
    skipped: dict[str, int]  # reason -> files
    notes: tuple[str, ...] = ()  # what integers of folders mean; images of a list without a file


class Evidence(Artifact):
    """A finding about images, and the images to show."""

    text: str
    images: tuple[str, ...]  # image_ids: the image at fault, then the one that it duplicates


class ValidationResult(Artifact):
    """Outcome of validation for one dataset."""

    dataset: str
    passed: bool
    images: int = 0  # usable ones
    classes: int = 0
    absent: tuple[str, ...] = ()  # wnids of the training dataset without a usable image here
    excluded: tuple[str, ...] = ()  # image_ids left out of training and evaluation
    leaked: int = 0  # of these, images with the bytes of a training image
    failures: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()


class TrainingFacts(Artifact):
    """Facts of a training run that do not vary with the machine; MLflow holds the others, in the
    run with the tag `fingerprint`.
    """

    fingerprint: str
    batch_size: int
    queue_size_effective: int  # 0: no memory queue


class Preprocessing(Artifact):
    rule: Literal["model", "as-is"]
    input_size: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    crop_pct: float
    crop_mode: str
    border: int = 0  # pixels cut off each side of the image before all else
    # apply: turned upright, as in training
    exif: Literal["ignore", "apply"] = Field(default="ignore", exclude_if=lambda v: v == "ignore")


class MatchedControl(Artifact):
    """The matched control: validation images of the same classes under the same mask."""

    dataset: str
    images: int
    top1: float
    top5: float
    predictions: str  # the Parquet file whose rows these are


class SubsetAccuracy(Artifact):
    """Accuracy on a subset of a dataset: one class or one rendition."""

    images: int
    top1: float
    top1_unmasked: float


class ShapeBias(Artifact):
    """Share of shape in decisions for an image's shape or texture class (Geirhos et al. 2019)."""

    value: float | None  # None: no decision for either
    shape: int  # decisions
    texture: int
    images: int  # whose shape and texture are different classes of the dataset
    left_out: int  # images whose texture is no class of the dataset, or equals the shape's


class MissingEvaluation(Artifact):
    """Replaces an evaluation if the dataset is missing or cannot be used."""

    dataset: str
    mode: str
    seed: int | None  # None: a model of evaluate.models, whose name `mode` is
    reason: str


class Evaluation(Artifact):
    """One cell: one dataset, mode and seed. Metrics that a dataset does not have are None or empty;
    `left_out` gives the reasons.
    """

    dataset: str
    protocol: str
    mode: str
    seed: int | None  # None: a model of evaluate.models, whose name `mode` is
    images: int
    excluded: int  # by validation
    outside: int  # images of classes that are not scored
    shortfall: str  # what is missing of the published dataset
    classes: int  # scored ones
    chance: float | None = None  # top-1 of guessing among all classes; None: 1 / classes
    top1: float
    top5: float
    top1_unmasked: float
    top5_unmasked: float
    macro_top1: float
    nll: float
    ece: float
    ece_equal_mass: float
    rms_calibration_error: float
    aurra: float
    mean_confidence: float
    per_class: dict[str, SubsetAccuracy]  # by wnid or group
    groups: dict[str, int] = {}  # label of each scored group; empty: labels are the model's classes
    renditions: dict[str, SubsetAccuracy]
    shape_bias: ShapeBias | None
    control: MatchedControl | None
    relative_accuracy: float | None
    effective_robustness: float | None
    left_out: dict[str, str]  # metric -> why it is missing
    preprocessing: Preprocessing
    resizing: str = ""  # why images that the protocol prescribes as they are were resized


class ProbeMeasure(Artifact):
    """One number of a probe: the mean of its column in the probe's rows."""

    value: float
    images: int
    chance: float | None  # value of a model that knows nothing; None: not defined
    higher_is_better: bool = True
    curve: str = ""  # measures of one curve are drawn as a line over `strength`
    strength: float | None = None
    note: str = ""


class ProbeSummary(Artifact):
    """The measures of a probe by name; names are like `random/0.25`."""

    measures: dict[str, ProbeMeasure]
    missing: dict[str, str] = {}  # measure -> why it has no value
    notes: tuple[str, ...] = ()


class ProbeEvaluation(ProbeSummary):
    """One probe of one model. A probe that could not run has no measures, and a reason."""

    probe: str
    mode: str
    seed: int | None  # None: a model of evaluate.models, whose name `mode` is
    reason: str = ""


def write_json(path: Path, artifact: BaseModel) -> None:
    """Write an artifact atomically as byte-stable JSON."""
    values = artifact.model_dump(mode="json", by_alias=True)
    write_text(path, json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write text atomically: readers see the old file or the new one."""
    with open_atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def read_evaluation(path: Path) -> Evaluation | MissingEvaluation:
    """Read the evaluation of a cell, or the reason why there is none."""
    return TypeAdapter[Evaluation | MissingEvaluation](
        Evaluation | MissingEvaluation
    ).validate_json(path.read_text(encoding="utf-8"))


def read_json(artifact_type: type[T], path: Path) -> T:
    """Read an artifact; DataError if there is no such file, or if it holds something else."""
    place = shorten_line(path)
    try:
        return artifact_type.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{place}: no such file; the stage that writes it has not run (`dvc repro`; "
            "`python -m steps plan` writes data/plan)"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{place}: not UTF-8; remove the file and run its stage again") from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise DataError(
            f"{place}: {f'{field}: ' if field else ''}{problem['msg'].lower()}; expected a "
            f"{artifact_type.__name__} as its stage writes it; "
            "remove the file and run the stage again (dvc repro)"
        ) from None
