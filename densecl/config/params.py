"""`params.yaml` as frozen models: an unknown key, a wrong type or an impossible value is an error
that names its key.

Imports no torch, so that a typing error answers at once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from densecl.config.error_messages import format_errors, list_field_names
from densecl.config.yaml_loader import Yaml12Loader
from densecl.errors import DenseclError

Mode = Literal["dense", "global", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)
TRAIN_SET = "imagenet-train"
CONTROL_SET = "imagenet"
RESERVED_UNITS = (*MODES, "validate", "evaluate", "report", "classes", "execution")

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
# YAML knows lists only; strict mode would refuse them for a tuple.
Range = Annotated[tuple[Positive, Positive], Field(strict=False)]


class ParamsError(DenseclError):
    """A params file that cannot be used; the message names file, key, what was found and what is
    allowed.
    """


class StrictModel(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)


class RenderParams(StrictModel):
    """One built-in set: how it is drawn and under which folder of data/rendered it lies."""

    style: Literal["photo", "recollected", "adversarial", "rendition", "cue-conflict", "sketch"]
    folder: Annotated[str, Field(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$")]
    images_per_class: Count
    size: Annotated[int, Field(ge=32, le=512)] = 64  # px, square
    seed: Annotated[int, Field(ge=0)] = 0


class DatasetParams(StrictModel):
    """A set on disk: a folder or an archive. `tracked_by` is the folder, archive or version file
    whose content DVC hashes.
    """

    root: str
    tracked_by: str
    layout: Literal["wnid", "index", "devkit"] = "wnid"
    devkit: str | None = (
        None  # ImageNet's development kit, a folder or its .tar.gz: labels of the flat val archive
    )
    images: Count | None = (
        None  # expected; None: the published number under the 1000 ImageNet classes, else any
    )
    classes: Count | None = None  # expected, likewise

    @model_validator(mode="after")
    def _check_devkit(self) -> DatasetParams:
        if (self.layout == "devkit") != (self.devkit is not None):
            raise ValueError(
                f"layout {self.layout} with devkit {self.devkit}: the layout and the kit need "
                f"each other"
            )
        return self


class ValidateParams(StrictModel):
    bad_images: Literal["stop", "exclude"] = "stop"
    minimum_per_class: Annotated[int, Field(ge=0)] = 1


class NetworkParams(StrictModel):
    """Any timm VisionTransformer or Eva with a CLS token; `checkpoint` is a local safetensors state
    dict to start from.
    """

    model_name: str
    model_args: dict[str, Any] = {}
    pretrained: bool = False
    checkpoint: str | None = None

    @model_validator(mode="after")
    def _check_initial_weights(self) -> NetworkParams:
        if self.pretrained and self.checkpoint:
            raise ValueError(
                "pretrained and checkpoint exclude each other: set pretrained to false to start "
                "from the file"
            )
        return self


class ColorJitterParams(StrictModel):
    brightness: Annotated[float, Field(ge=0)] = 0.4
    contrast: Annotated[float, Field(ge=0)] = 0.4
    saturation: Annotated[float, Field(ge=0)] = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1


class ViewParams(StrictModel):
    scale: Range  # share of the image's area
    ratio: Range = (3 / 4, 4 / 3)  # width / height
    blur: Fraction = 0.0  # probability

    @model_validator(mode="after")
    def _check_ranges(self) -> ViewParams:
        if self.scale[0] > self.scale[1] or self.scale[1] > 1:
            raise ValueError(f"scale must be two areas, low <= high <= 1, found {list(self.scale)}")
        if self.ratio[0] > self.ratio[1]:
            raise ValueError(f"ratio must be low <= high, found {list(self.ratio)}")
        return self


class DataParams(StrictModel):
    """The two views of the spec's "Data Augmentation Strategy"."""

    cache: Literal["none", "ram"] = (
        "none"  # ram: keep the decoded training images, for sets that fit
    )
    min_overlap: Fraction = 0.0  # of the smaller crop; view 2's crop is drawn again until it holds
    flip: Fraction = 0.5
    color_jitter: ColorJitterParams = ColorJitterParams()
    view1: ViewParams = ViewParams(scale=(0.08, 1.0))
    view2: ViewParams = ViewParams(scale=(0.2, 1.0), blur=0.2)
    blur_sigma: Range = (0.1, 2.0)  # px at 224 px, scaled with the input size


class GlobalContrastParams(StrictModel):
    lambda_weight: Fraction = 0.5  # at 1 a linear probe is fitted after training
    contrastive_weight_adaptive: bool = False
    ramp_epochs: Positive = 10.0
    queue_size: Count = 65536
    temperature: Annotated[float, Field(ge=0.01, le=1)] = 0.2
    learnable_temp: bool = False
    dense_dim: Count = 128  # the spec's one projection dimension, of both heads
    negatives: Literal["all", "other_class"] = "all"
    key_encoder: Literal["shared", "momentum"] = "shared"
    key_momentum: Annotated[float, Field(ge=0, le=1)] = 0.99  # at the start; ramped to 1
    symmetric: bool = False


class DenseContrastParams(GlobalContrastParams):
    sampling_strategy: Literal["random", "diverse", "hardest"] = "random"
    patches_per_image: Count = 50
    correspondence_features: Literal["dense", "backbone", "geometric"] = "dense"
    correspondence_filter: Literal["none", "mutual", "threshold"] = "none"
    correspondence_threshold: Annotated[float, Field(ge=-1, le=1)] = (
        0.5  # cosine, for the filter of that name
    )
    memory_unit: Literal["patch", "image"] = "patch"
    memory_per_image: Count | None = None  # None: every sampled key is stored

    @model_validator(mode="after")
    def _check_exclusive_options(self) -> DenseContrastParams:
        if self.correspondence_features == "geometric" and self.correspondence_filter != "none":
            raise ValueError(
                f"correspondence_filter: found {self.correspondence_filter}, expected none: "
                f"geometric matches are true already"
            )
        if self.memory_unit == "image" and self.memory_per_image is not None:
            raise ValueError(
                f"memory_per_image: found {self.memory_per_image}, expected null: memory_unit "
                f"image stores one pooled key an image"
            )
        return self


class ContrastParams(DenseContrastParams):
    """The values of both contrastive modes, and what differs in one of them."""

    dense: dict[str, Any] = {}
    global_: Annotated[dict[str, Any], Field(alias="global")] = {}

    def resolve_mode(self, mode: Mode) -> GlobalContrastParams | None:
        """The values `mode` reads; None for mode none."""
        if mode == "none":
            return None
        mode_type: type[GlobalContrastParams] = (
            DenseContrastParams if mode == "dense" else GlobalContrastParams
        )
        base = {name: getattr(self, name) for name in mode_type.model_fields}
        return mode_type.model_validate(base | (self.dense if mode == "dense" else self.global_))


class TrainParams(StrictModel):
    batch_size: Count = 256
    epochs: Count = 100
    grad_accumulation: Count = 1  # parts a batch is scored in, one after the other
    learning_rate: Positive = 1e-5
    learning_rate_batch: Count | None = (
        None  # the batch the rate is stated for; None: it is absolute
    )
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = (
        None  # None: the weights themselves are exported
    )
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = (
        False  # torch.compile of each transformer block; pays where a training takes hours
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_epochs: Annotated[float, Field(ge=0)] = 5.0
    grad_clip: Positive | None = 5.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    steps_per_epoch: Count | None = None  # None: all images
    # How a training is carried out, not what it computes: in no plan that a stage depends on, so a
    # change reruns nothing.
    checkpoint_minutes: Annotated[Positive, Field(exclude=True)] = (
        10.0  # between checkpoints, beside the one an epoch
    )
    processes: Annotated[Count, Field(exclude=True)] = 1  # that share each batch, on this machine
    validate_on: Annotated[tuple[str, ...], Field(strict=False)] | None = (
        None  # None: every evaluation set
    )

    @model_validator(mode="after")
    def _check_batch_and_warmup(self) -> TrainParams:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be below epochs ({self.epochs}), found {self.warmup_epochs}"
            )
        if self.batch_size % self.grad_accumulation:
            raise ValueError(
                f"grad_accumulation: found {self.grad_accumulation}, expected a divisor of "
                f"batch_size ({self.batch_size})"
            )
        if self.batch_size % (self.grad_accumulation * self.processes):
            raise ValueError(
                f"processes: found {self.processes}, expected a divisor of batch_size / "
                f"grad_accumulation "
                f"({self.batch_size // self.grad_accumulation}): each takes the same share of "
                f"every batch"
            )
        return self

    @property
    def peak_learning_rate(self) -> float:
        """Peak learning rate of this batch size (Goyal et al. 2017)."""
        return self.learning_rate * (
            self.batch_size / self.learning_rate_batch if self.learning_rate_batch else 1
        )


class EvaluateParams(StrictModel):
    datasets: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    batch_size: Count = 256
    require: Literal["all", "present"] = (
        "all"  # present: a set that is missing or fails leaves its reason and stops nothing
    )
    preprocess: dict[str, Literal["model", "as-is"]] = {}  # by set; else the protocol's
    protocol: dict[
        str, str
    ] = {}  # by set: a row of densecl/evaluation/protocols.py; else the set's own name, or folder
    classes: dict[
        str, Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    ] = {}  # by set: wnids it is scored over


class ReportParams(StrictModel):
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    bootstrap_samples: Annotated[int, Field(ge=100)] = 2000


class GateParams(StrictModel):
    """What a candidate must show beside the champion, on the same images."""

    margin: Fraction = 0.01  # the lower bound of its difference on val must lie above minus this
    max_drop: Fraction = (
        0.02  # a set that falls by more than this, and can be told from no fall, refuses it
    )
    minimum: dict[
        str, Fraction
    ] = {}  # by set: least top-1 of a first champion; val must beat chance in any case


class NotifyParams(StrictModel):
    webhook: str | None = (
        None  # an http(s) address, or $NAME of the environment variable that holds it
    )
    file: str | None = None  # one JSON line a retraining


class RetrainingParams(StrictModel):
    """`python -m pipelines retraining`; no stage reads it, so a change reruns nothing
    (docs/retraining.md).
    """

    mode: Mode | None = None  # of the candidate; None: the first of modes
    registry: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "densecl-vit"
    gate: GateParams = GateParams()
    git: Literal["tag", "commit", "off"] = "tag"
    branch: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9/_-]*$")] = "retraining"
    notify: NotifyParams = NotifyParams()


class Params(StrictModel):
    modes: Annotated[tuple[Mode, ...], Field(strict=False, min_length=1)]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]
    render: dict[str, RenderParams]
    datasets: dict[str, DatasetParams]
    validate_: Annotated[ValidateParams, Field(alias="validate")] = ValidateParams()
    network: NetworkParams
    data: DataParams = DataParams()
    contrast: ContrastParams = ContrastParams()
    train: TrainParams
    evaluate: EvaluateParams
    report: ReportParams = ReportParams()
    retraining: RetrainingParams = RetrainingParams()

    @property
    def candidate(self) -> tuple[Mode, int]:
        """Mode and seed of the model that a retraining judges."""
        return self.retraining.mode or self.modes[0], self.seeds[0]

    @property
    def optional_datasets(self) -> tuple[str, ...]:
        """Sets that may be missing or fail: they leave a reason and stop nothing."""
        return tuple(
            name
            for name in self.datasets
            if name != TRAIN_SET and self.evaluate.require == "present"
        )

    @model_validator(mode="after")
    def _check_consistency(self) -> Params:  # noqa: PLR0912 - one rule per branch
        _check_unique("modes", self.modes)
        _check_unique("seeds", self.seeds)
        _check_unique("evaluate.datasets", self.evaluate.datasets)
        dataset_names = sorted(self.datasets)
        for name in dataset_names:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in RESERVED_UNITS:
                raise ConfigValueError(
                    "datasets",
                    f"{name!r} cannot name a set: use a-z, 0-9, '-' and '_', and none of "
                    f"{', '.join(RESERVED_UNITS)}",
                )
        if TRAIN_SET not in dataset_names:
            raise ConfigValueError(
                "datasets", f"{TRAIN_SET} is missing: it is the set that models are trained on"
            )
        if CONTROL_SET not in self.evaluate.datasets:
            raise ConfigValueError(
                "evaluate.datasets",
                f"{CONTROL_SET} is missing: it is the control of every shifted set",
            )
        referenced = {
            "evaluate.datasets": self.evaluate.datasets,
            "evaluate.preprocess": self.evaluate.preprocess,
            "evaluate.protocol": self.evaluate.protocol,
            "evaluate.classes": self.evaluate.classes,
            "render": self.render,
        }
        for key, names in referenced.items():
            for name in names:
                if name not in dataset_names:
                    raise ConfigValueError(
                        key, f"no set {name!r} in datasets; there are {', '.join(dataset_names)}"
                    )
        evaluated = {
            "train.validate_on": self.train.validate_on or (),
            "retraining.gate.minimum": self.retraining.gate.minimum,
        }
        for key, names in evaluated.items():
            for name in names:
                if name not in self.evaluate.datasets:
                    raise ConfigValueError(key, f"{name!r} is not in evaluate.datasets")
        if self.retraining.mode and self.retraining.mode not in self.modes:
            raise ConfigValueError(
                "retraining.mode",
                f"found {self.retraining.mode}, expected one of modes ({', '.join(self.modes)})",
            )
        for mode in ("dense", "global"):
            try:
                mode_params = self.contrast.resolve_mode(mode)
            except ValidationError as error:
                raise ConfigValueError(
                    f"contrast.{mode}", "; ".join(format_errors(error, DenseContrastParams))
                ) from None
            if (
                mode_params
                and mode in self.modes
                and mode_params.contrastive_weight_adaptive
                and mode_params.ramp_epochs > self.train.epochs
            ):
                raise ConfigValueError(
                    "contrast.ramp_epochs",
                    f"found {mode_params.ramp_epochs:g} for mode {mode}, expected at most "
                    f"train.epochs "
                    f"({self.train.epochs}): the weight would never reach lambda_weight; shorten "
                    f"the ramp",
                )
        return self


class ConfigValueError(ValueError):
    """A value that is impossible together with another: the key to blame, and why."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")


def _check_unique(key: str, values: tuple[object, ...]) -> None:
    repeated = sorted({str(v) for v in values if values.count(v) > 1})
    if repeated:
        raise ConfigValueError(
            key, f"{', '.join(repeated)} named more than once; one name is one run"
        )


def load_params(path: Path) -> Params:
    """Validated params of a YAML file; raises ParamsError with one line a problem."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Yaml12Loader)  # noqa: S506 - a SafeLoader
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; `cp presets/imagenet-finetune.yaml {path}` gives one to edit"
        ) from None
    except RecursionError:
        raise ParamsError(f"{path}: not readable as YAML: brackets nested too deep") from None
    # found by fuzzing: ValueError of a date of month 13, AttributeError of an empty !!timestamp
    except Exception as error:
        raise ParamsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ParamsError(
            f"{path}: found {type(values).__name__}, expected sections: "
            f"{', '.join(list_field_names(Params))}"
        )
    return parse_params(values, str(path))


def parse_params(values: dict[str, Any], source: str) -> Params:
    """Validated params of a nested mapping; `source` names it in errors."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(
            "\n".join(f"{source}: {line}" for line in format_errors(error, Params))
        ) from None
