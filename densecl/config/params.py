"""`params.yaml` as frozen models; an unknown key, a wrong type or an invalid value is an error that
names its key.

A parameter is documented once, at its field; docs/params.md, `train.py --help` and the error
messages read it there. Imports no torch, so that typos are reported immediately.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from densecl.config.base import (
    CONTROL_SET,
    MODES,
    TRAIN_SET,
    Mode,
    StrictModel,
)
from densecl.config.data_params import (
    ColorJitterParams,
    DataParams,
    DatasetParams,
    RenderParams,
    ValidateParams,
    ViewParams,
)
from densecl.config.error_messages import format_errors, list_field_names
from densecl.config.evaluation_params import (
    EvaluateParams,
    GateParams,
    NotifyParams,
    ReportParams,
    RetrainingParams,
)
from densecl.config.training_params import (
    ContrastParams,
    DenseContrastParams,
    GlobalContrastParams,
    NetworkParams,
    TrainParams,
)
from densecl.config.yaml_loader import YamlError, load_yaml
from densecl.errors import DenseclError

__all__ = [
    "CONTROL_SET",
    "MODES",
    "TRAIN_SET",
    "ColorJitterParams",
    "ContrastParams",
    "DataParams",
    "DatasetParams",
    "DenseContrastParams",
    "EvaluateParams",
    "GateParams",
    "GlobalContrastParams",
    "Mode",
    "NetworkParams",
    "NotifyParams",
    "Params",
    "ParamsError",
    "RenderParams",
    "ReportParams",
    "RetrainingParams",
    "TrainParams",
    "ValidateParams",
    "ViewParams",
    "load_params",
    "parse_params",
]

RESERVED_UNITS = (*MODES, "validate", "evaluate", "report", "classes", "execution")


class ParamsError(DenseclError):
    """A params file that cannot be used; the message names the file, the key, what was found and
    what is allowed.
    """


class Params(StrictModel):
    modes: Annotated[tuple[Mode, ...], Field(strict=False, min_length=1)] = Field(
        description="modes to train and compare; each mode with each seed is one training run"
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)] = (
        Field(
            description="seeds of all randomness; statements about a mode need three or more, "
            "fewer describe these models only"
        )
    )
    render: dict[str, RenderParams] = Field(
        description="built-in datasets, drawn by code; {} where every dataset is your own"
    )
    datasets: dict[str, DatasetParams] = Field(description="every dataset, by name")
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
        """Datasets that may be missing or invalid; the reason is reported and the pipeline
        continues.
        """
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
                    f"{name!r} cannot name a dataset: use a-z, 0-9, '-' and '_', and none of "
                    f"{', '.join(RESERVED_UNITS)}",
                )
        if TRAIN_SET not in dataset_names:
            raise ConfigValueError(
                "datasets", f"{TRAIN_SET} is missing: it is the dataset that models are trained on"
            )
        if CONTROL_SET not in self.evaluate.datasets:
            raise ConfigValueError(
                "evaluate.datasets",
                f"{CONTROL_SET} is missing: it is the control of every shifted dataset",
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
                        key,
                        f"no dataset {name!r} in datasets; there are {', '.join(dataset_names)}",
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
    """A value that contradicts another one: the key at fault, and the reason."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")


def _check_unique(key: str, values: tuple[object, ...]) -> None:
    repeated = sorted({str(v) for v in values if values.count(v) > 1})
    if repeated:
        raise ConfigValueError(
            key, f"{', '.join(repeated)} named more than once; one name is one run"
        )


def load_params(path: Path) -> Params:
    """Validated params of a YAML file; raises ParamsError with one line per problem."""
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; `cp presets/imagenet-finetune.yaml {path}` gives one to edit"
        ) from None
    except (YamlError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ParamsError(
            f"{path}: found {type(values).__name__}, expected sections: "
            f"{', '.join(list_field_names(Params))}"
        )
    for key in values:
        if not isinstance(key, str):
            raise ParamsError(f"{path}: found key {key!r}, expected the name of a section")
    return parse_params(values, str(path))


def parse_params(values: dict[str, Any], source: str) -> Params:
    """Validated params of a nested mapping; `source` names it in errors."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(
            "\n".join(f"{source}: {line}" for line in format_errors(error, Params))
        ) from None
