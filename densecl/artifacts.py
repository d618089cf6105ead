"""Artifacts that stages exchange as JSON; fractions are in [0, 1]."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from densecl.config.params import (
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
    """What render, prepare and evaluate read of one set."""

    name: str
    dataset: DatasetParams
    train_root: str  # its folders are the class list
    render: RenderParams | None
    preprocess: Literal["model", "as-is"] | None  # None: as the protocol says
    protocol: str  # row of densecl/evaluation/protocols.py
    classes: tuple[str, ...]  # wnids it is scored over; empty: as the protocol says
    optional: bool  # missing or failed, it leaves a reason and stops nothing


class ValidatePlan(Artifact):
    datasets: dict[str, DatasetParams]
    optional: tuple[str, ...]  # whose failure stops nothing
    values: ValidateParams


class TrainPlan(Artifact):
    mode: Mode
    network: NetworkParams
    data: DataParams
    train: TrainParams
    contrast: SerializeAsAny[GlobalContrastParams] | None

    @field_validator("contrast", mode="before")
    @classmethod
    def _parse_contrast(cls, value: Any, info: ValidationInfo) -> Any:
        """A mapping read from JSON becomes the settings of its mode."""
        contrast_types = {"dense": DenseContrastParams, "global": GlobalContrastParams}
        return (
            contrast_types[info.data["mode"]].model_validate(value)
            if isinstance(value, dict)
            else value
        )


class ExecutionPlan(Artifact):
    """How trainings are carried out; no stage depends on it."""

    checkpoint_minutes: float
    processes: int


class EvaluatePlan(Artifact):
    batch_size: int


class ReportPlan(Artifact):
    """Every cell the tables must have, whether its file exists or not."""

    modes: tuple[Mode, ...]
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    protocols: dict[str, str]  # set -> row of densecl/evaluation/protocols.py
    rendered: tuple[str, ...]
    values: ReportParams
    params: dict[str, Any]


class Evidence(Artifact):
    """A finding about images, with the images to show."""

    text: str
    images: tuple[str, ...]  # image_ids: the one at fault, then the one that it repeats


class ValidationResult(Artifact):
    """Outcome of validation for one set."""

    dataset: str
    passed: bool
    images: int  # usable ones
    classes: int
    absent: tuple[str, ...]  # wnids of the train set without a usable image here
    excluded: tuple[str, ...]  # image_ids left out of training and evaluation
    failures: tuple[str, ...]
    warnings: tuple[str, ...]
    evidence: tuple[Evidence, ...] = ()


class TrainingCost(Artifact):
    """What a training cost; step times are medians of one alternating measurement in the same
    process, batch in memory.
    """

    wall_seconds: float
    images_per_second: float
    peak_memory_bytes: int
    device: str
    views: int
    batch_size: int
    step_seconds: float  # this mode, two views
    none_step_seconds: float  # classification only, the same two views
    one_view_step_seconds: float  # classification only, one view
    queue_size_effective: int


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
    """Some images of a set: those of a class or of a rendition."""

    images: int
    top1: float
    top1_unmasked: float


class ShapeBias(Artifact):
    """Of the decisions for an image's shape or texture class, the share for shape (Geirhos et al.
    2019).
    """

    value: float | None  # None: no decision for either
    shape: int  # decisions
    texture: int
    images: int  # with two different classes of the set
    left_out: int  # images whose texture is no class of the set, or is the shape's own


class MissingEvaluation(Artifact):
    """In a cell's place where its set is missing or cannot be used."""

    dataset: str
    mode: str
    seed: int
    reason: str


class Evaluation(Artifact):
    """One cell: one set, one mode, one seed. What a set does not have is None or empty, and
    `left_out` says why.
    """

    dataset: str
    protocol: str
    mode: str
    seed: int
    images: int
    excluded: int  # by validation
    outside: int  # of classes that the set is not scored over
    shortfall: str  # what of the published set is not there
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
    left_out: dict[str, str]  # figure -> why it is not there
    preprocessing: Preprocessing


def write_json(path: Path, artifact: BaseModel) -> None:
    """The record as byte-stable JSON; appears whole or not at all."""
    text = json.dumps(
        artifact.model_dump(mode="json", by_alias=True),
        indent=1,
        sort_keys=True,
        ensure_ascii=False,
    )
    write_text(path, text + "\n")


def write_text(path: Path, text: str) -> None:
    """Atomic: a reader sees the old file or the new one."""
    with open_atomic_file(path) as file:
        file.write(text.encode("utf-8"))


def read_evaluation(path: Path) -> Evaluation | MissingEvaluation:
    """What an evaluation left: its figures, or why there are none."""
    return TypeAdapter[Evaluation | MissingEvaluation](
        Evaluation | MissingEvaluation
    ).validate_json(path.read_text(encoding="utf-8"))


def read_json(artifact_type: type[T], path: Path) -> T:
    """DataError where the file holds something else."""
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
