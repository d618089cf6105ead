"""Artifacts that stages exchange as JSON; fractions are in [0, 1]."""

import json
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from densecl.config.params import (
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
from densecl.errors import DataError
from densecl.runtime.atomic_files import open_atomic_file

T = TypeVar("T", bound=BaseModel)


class Artifact(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DatasetPlan(Artifact):
    """What render, prepare and evaluate read about one dataset."""

    name: str
    dataset: DatasetParams
    train_root: str  # the names of its folders are the class list
    render: RenderParams | None
    preprocess: Literal["model", "as-is"] | None  # None: the protocol's rule
    protocol: str  # row of densecl/evaluation/protocols.py
    classes: tuple[str, ...]  # wnids that are scored; empty: those of the protocol
    optional: bool  # if it is missing or fails, the reason is reported and the pipeline continues


class ValidatePlan(Artifact):
    datasets: dict[str, DatasetParams]
    optional: tuple[str, ...]  # datasets whose failure does not stop the pipeline
    values: ValidateParams


class TrainPlan(Artifact):
    mode: Mode
    network: NetworkParams
    data: DataParams
    train: TrainParams
    # Read from JSON, a mapping is the first of the two that has all of its keys.
    contrast: GlobalContrastParams | DenseContrastParams | None

    @model_validator(mode="after")
    def _check_contrast(self) -> Self:
        types = {"none": type(None), "global": GlobalContrastParams, "dense": DenseContrastParams}
        if type(self.contrast) is not types[self.mode]:
            raise ValueError(f"contrast has the keys of another mode than {self.mode}")
        return self


class ExecutionPlan(Artifact):
    """How trainings and evaluations are executed; no stage depends on it."""

    checkpoint_minutes: float
    processes: int
    cell_cache: str | None


class CostPlan(Artifact):
    """What shapes a training step; keys that do not have their defaults."""

    modes: tuple[Mode, ...]
    network: NetworkParams
    train: TrainParams
    contrast: dict[Mode, GlobalContrastParams | DenseContrastParams | None]
    processes: int  # that share a batch in training; one of them is measured
    budget: CostParams


class EvaluatePlan(Artifact):
    """What the evaluation of one model on all datasets reads."""

    batch_size: int
    datasets: tuple[DatasetPlan, ...]


class ReportPlan(Artifact):
    """Every cell that the tables must have, whether its file exists or not."""

    modes: tuple[Mode, ...]
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    protocols: dict[str, str]  # dataset -> row of densecl/evaluation/protocols.py
    rendered: tuple[str, ...]
    values: ReportParams
    params: dict[str, Any]


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
    seed: int
    reason: str


class Evaluation(Artifact):
    """One cell: one dataset, mode and seed. Metrics that a dataset does not have are None or empty;
    `left_out` gives the reasons.
    """

    dataset: str
    protocol: str
    mode: str
    seed: int
    images: int
    excluded: int  # by validation
    outside: int  # images of classes that are not scored
    shortfall: str  # what is missing of the published dataset
    classes: int  # scored ones
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
    per_class: dict[str, SubsetAccuracy]  # by wnid
    renditions: dict[str, SubsetAccuracy]
    shape_bias: ShapeBias | None
    control: MatchedControl | None
    relative_accuracy: float | None
    effective_robustness: float | None
    left_out: dict[str, str]  # metric -> why it is missing
    preprocessing: Preprocessing
    resizing: str = ""  # why images that the protocol prescribes as they are were resized


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
    """Read an artifact; DataError if the file holds something else."""
    try:
        return artifact_type.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        field = ".".join(map(str, problem["loc"]))
        raise DataError(
            f"{path}: {f'{field}: ' if field else ''}{problem['msg'].lower()}; expected a "
            f"{artifact_type.__name__} as its stage writes it; "
            "remove the file and run the stage again (dvc repro)"
        ) from None
