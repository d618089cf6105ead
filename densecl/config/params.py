"""`params.yaml` as frozen models; an unknown key, a wrong type or an invalid value is an error that
names its key.

A parameter is documented once, at its field; docs/params.md, `train.py --help` and the error
messages read it there. Imports no torch, so that typos are reported immediately.
"""

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Self

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
    CostParams,
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
from densecl.config.yaml_loader import load_yaml
from densecl.errors import DenseclError

__all__ = [
    "CONTROL_SET",
    "MODES",
    "TRAIN_SET",
    "ColorJitterParams",
    "ContrastParams",
    "CostParams",
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

RESERVED_UNITS = (
    *MODES,
    "validate",
    "cost",
    "evaluate",
    "report",
    "classes",
    "execution",
)


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
    cost: CostParams = CostParams()
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
    def _check_consistency(self) -> Self:
        evaluated = self.evaluate.datasets
        for key, values in {
            "modes": self.modes,
            "seeds": self.seeds,
            "evaluate.datasets": evaluated,
        }.items():
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(
                    f"{key}: {', '.join(repeated)} named more than once; one name is one run"
                )
        for name in self.datasets:
            if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name) or name in RESERVED_UNITS:
                raise ValueError(
                    f"datasets: {name!r} cannot name a dataset: use a-z, 0-9, '-' and '_', and "
                    f"none of {', '.join(RESERVED_UNITS)}"
                )
        if TRAIN_SET not in self.datasets:
            raise ValueError(
                f"datasets: {TRAIN_SET} is missing: it is the dataset that models are trained on"
            )
        if CONTROL_SET not in evaluated:
            raise ValueError(
                f"evaluate.datasets: {CONTROL_SET} is missing: it is the control of every shifted "
                "dataset"
            )
        mode = self.retraining.mode
        references: list[tuple[str, Iterable[str], str, Collection[str]]] = [
            ("evaluate.datasets", evaluated, "datasets", self.datasets),
            ("evaluate.preprocess", self.evaluate.preprocess, "datasets", self.datasets),
            ("evaluate.protocol", self.evaluate.protocol, "datasets", self.datasets),
            ("evaluate.classes", self.evaluate.classes, "datasets", self.datasets),
            ("render", self.render, "datasets", self.datasets),
            ("train.validate_on", self.train.validate_on or (), "evaluate.datasets", evaluated),
            (
                "retraining.gate.minimum",
                self.retraining.gate.minimum,
                "evaluate.datasets",
                evaluated,
            ),
            ("retraining.mode", (mode,) if mode else (), "modes", self.modes),
        ]
        for key, names, section, known in references:
            for name in names:
                if name not in known:
                    raise ValueError(
                        f"{key}: found {name!r}, expected one of {section} "
                        f"({', '.join(sorted(known))})"
                    )
        self._check_modes()
        return self

    def _check_modes(self) -> None:
        for mode in ("dense", "global"):
            try:
                contrast = self.contrast.resolve_mode(mode)
            except ValidationError as error:
                reasons = "; ".join(format_errors(error, DenseContrastParams))
                raise ValueError(f"contrast.{mode}: {reasons}") from None
            if (
                contrast
                and mode in self.modes
                and contrast.contrastive_weight_adaptive
                and contrast.ramp_epochs > self.train.epochs
            ):
                raise ValueError(
                    f"contrast.ramp_epochs: found {contrast.ramp_epochs:g} for mode {mode}, "
                    f"expected at most train.epochs ({self.train.epochs}): the weight would never "
                    "reach lambda_weight; shorten the ramp"
                )


def load_params(path: Path) -> Params:
    """Validated params of a YAML file; raises ParamsError with one line per problem."""
    try:
        values = load_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(
            f"{path}: no such file; `cp presets/imagenet-finetune.yaml {path}` gives one to edit"
        ) from None
    except ValueError as error:
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
