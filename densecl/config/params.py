"""`params.yaml` as frozen models; an unknown key, a wrong type or an invalid value is an error that
names its key.

A parameter is documented once, at its field; docs/params.md, `train.py --help` and the error
messages read it there. Imports no torch, so that typos are reported immediately.
"""

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator

from densecl import paths
from densecl.config.base import (
    CONTROL_SET,
    MODES,
    TRAIN_SET,
    Mode,
    NonEmptyNames,
    StrictModel,
)
from densecl.config.cluster_params import ClusterParams
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
from densecl.config.flatten import flatten
from densecl.config.mode_params import ModeSettings, ModeTrainParams, VariantParams
from densecl.config.probe_checks import check_entries
from densecl.config.probe_params import TransferParams
from densecl.config.sweep_params import SweepParams, check_sweep
from densecl.config.titles import show_title
from densecl.config.training_params import (
    ContrastParams,
    DenseContrastParams,
    GlobalContrastParams,
    NetworkParams,
    TrainParams,
)
from densecl.config.tuning_record import TuningRecord
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

NAME = r"[a-z0-9][a-z0-9_-]*"  # of a dataset, a variant or a folder of images
RESERVED_UNITS = (
    *MODES,
    "validate",
    "cost",
    "evaluate",
    "report",
    "classes",
    "execution",
)


# What only a shell expands: a home, a variable.
UNEXPANDED = re.compile(r"^~|/~(?:/|$)|\$[\w{(]|(?:^|/)%[a-zA-Z]\w*%(?:/|$)")


class ParamsError(DenseclError):
    """A params file that cannot be used; the message names the file, the key, what was found and
    what is allowed.
    """


class Params(StrictModel):
    modes: NonEmptyNames = Field(
        description="modes to train and compare: dense, global, none, or names of `variants`; each "
        "mode with each seed is one training run"
    )
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)] = (
        Field(
            description="seeds of all randomness; statements about a mode need three or more, "
            "fewer describe these models only"
        )
    )
    render: dict[str, RenderParams] = Field(
        description="built-in datasets and images of `transfer`, drawn by code; {} where all are "
        "your own"
    )
    datasets: dict[str, DatasetParams] = Field(description="every dataset, by name")
    transfer: dict[str, TransferParams] = Field(
        default={}, description="images, masks and boxes for probes of frozen features, by name"
    )
    validate_: Annotated[ValidateParams, Field(alias="validate")] = ValidateParams()
    network: NetworkParams
    data: DataParams = DataParams()
    contrast: ContrastParams = ContrastParams()
    train: ModeTrainParams
    variants: dict[str, VariantParams] = Field(
        default={},
        exclude_if=lambda variants: not variants,  # as in params that know none
        description="modes of their own, by name (docs/variants.md): those that `modes` names run",
    )
    cost: CostParams = CostParams()
    evaluate: EvaluateParams
    report: ReportParams = ReportParams()
    retraining: RetrainingParams = RetrainingParams()
    cluster: ClusterParams = ClusterParams()
    sweep: SweepParams = SweepParams()
    tuning: TuningRecord | None = Field(
        default=None,
        exclude_if=lambda record: record is None,  # as in params that know none
        description="what a sweep has chosen (docs/fair.md), as its preset states it",
    )

    @property
    def candidate(self) -> tuple[str, int]:
        """Mode and seed of the model that a retraining judges."""
        return self.retraining.mode or self.modes[0], self.seeds[0]

    @property
    def mode_settings(self) -> ModeSettings:
        """What each mode and variant is trained with."""
        return ModeSettings(contrast=self.contrast, train=self.train, variants=self.variants)

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
    def _check_paths(self) -> Self:
        values = flatten(self.model_dump(include={"datasets", "transfer"})) | {
            "evaluate.cell_cache": self.evaluate.cell_cache,
            "retraining.notify.file": self.retraining.notify.file,
        }
        found = [
            f"{key}: found {value!r}"
            for key, value in values.items()
            if isinstance(value, str) and not key.endswith(".title") and UNEXPANDED.search(value)
        ]
        if found:  # else we, or DVC, create a folder of that name
            raise ValueError(
                f"{'; '.join(found)}, expected a path without ~ and variables; write it out"
            )
        return self

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        self._check_repeated()
        self._check_names()
        self._check_variant_names()
        self._check_indices()
        self._check_titles()
        self._check_required()
        self._check_order()
        self._check_references()
        check_entries(self.evaluate.probes, self.transfer)
        self._check_modes()
        return self

    def _check_repeated(self) -> None:
        for key, values in {
            "modes": self.modes,
            "seeds": self.seeds,
            "evaluate.datasets": self.evaluate.datasets,
        }.items():
            repeated = sorted({str(value) for value in values if values.count(value) > 1})
            if repeated:
                raise ValueError(
                    f"{key}: {', '.join(repeated)} named more than once; one name is one run"
                )

    def _check_names(self) -> None:
        for name in self.datasets:
            if not re.fullmatch(NAME, name) or name in RESERVED_UNITS:
                raise ValueError(
                    f"datasets: {name!r} cannot name a dataset: use a-z, 0-9, '-' and '_', and "
                    f"none of {', '.join(RESERVED_UNITS)}"
                )
        for name in self.transfer:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"transfer: {name!r} cannot name a folder of images: use a-z, 0-9, '-' and '_'"
                )

    def _check_required(self) -> None:
        if TRAIN_SET not in self.datasets:
            raise ValueError(
                f"datasets: {TRAIN_SET} is missing: it is the dataset that models are trained on"
            )
        if CONTROL_SET not in self.evaluate.datasets:
            raise ValueError(
                f"evaluate.datasets: {CONTROL_SET} is missing: it is the control of every shifted "
                "dataset"
            )

    def _check_references(self) -> None:
        """Names that stand for an entry of another section have one."""
        evaluated = self.evaluate.datasets
        mode = self.retraining.mode
        references: list[tuple[str, Iterable[str], str, Collection[str]]] = [
            ("modes", self.modes, "modes or variants", (*MODES, *self.variants)),
            ("evaluate.datasets", evaluated, "datasets", self.datasets),
            ("evaluate.preprocess", self.evaluate.preprocess, "datasets", self.datasets),
            ("evaluate.protocol", self.evaluate.protocol, "datasets", self.datasets),
            ("evaluate.classes", self.evaluate.classes, "datasets", self.datasets),
            ("evaluate.class_groups", self.evaluate.class_groups, "datasets", self.datasets),
            ("evaluate.probes", self.evaluate.probes.transfer_names, "transfer", self.transfer),
            (
                "render",
                self.render,
                "datasets or transfer",
                {**self.datasets, **self.transfer},
            ),
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

    def _check_order(self) -> None:
        """Blocks of shards need shards."""
        layout = self.datasets[TRAIN_SET].layout
        if self.data.order == "shards" and layout not in ("webdataset", "parquet"):
            raise ValueError(
                f"data.order: found shards with datasets.{TRAIN_SET}.layout {layout}, expected "
                "webdataset or parquet; set data.order: images, or pack the dataset"
            )

    def _check_titles(self) -> None:
        """Two rows of one name would be two sets to no reader."""
        names = dict[str, str]()
        for name, dataset in self.datasets.items():
            title = show_title(dataset.title, name)
            first = names.setdefault(title, name)
            if first != name:
                raise ValueError(
                    f"datasets.{name}.title: found {title!r}, the name of "
                    f"datasets.{first} too, expected one of its own"
                )

    def _check_indices(self) -> None:
        """An index is of one root in a store; splits of one may share it."""
        roots = dict[str, str]()
        for name, dataset in self.datasets.items():
            if "://" not in dataset.root:
                continue
            first = roots.setdefault(os.path.normpath(dataset.tracked_by), dataset.root)
            if first != dataset.root:
                raise ValueError(
                    f"datasets.{name}.tracked_by: found {dataset.tracked_by}, the index of {first} "
                    f"too, expected one of {dataset.root} only; name another file, such as "
                    f"shards/{name}.json"
                )

    def _check_variant_names(self) -> None:
        taken = {
            **dict.fromkeys((*RESERVED_UNITS, *paths.REGISTERED), "reserved"),
            **dict.fromkeys(self.datasets, "the name of a dataset"),
        }
        for name in self.variants:
            if not re.fullmatch(NAME, name):
                raise ValueError(
                    f"variants: {name!r} cannot name a variant: use a-z, 0-9, '-' and '_'"
                )
            if name in taken:
                raise ValueError(f"variants: {name!r} is {taken[name]}; choose another name")
            for model in self.evaluate.models:
                if re.fullmatch(rf"{name}(-\d+)?", model):
                    raise ValueError(
                        f"variants: {name!r} with a seed could be {model!r} of evaluate.models; "
                        "choose another name"
                    )

    def _check_modes(self) -> None:
        settings = self.mode_settings
        settings.check()
        # Its defaults may not suit params that tune nothing, and a factor around a tuned value may
        # lead out of bounds; a sweep that begins checks them in any case.
        if "sweep" in self.model_fields_set and self.tuning is None:
            check_sweep(self.sweep, settings)
        for name in self.modes:
            if (base := settings.resolve_base(name)) not in self.modes:
                raise ValueError(
                    f"modes: found {name} without its base {base}, which it is compared with; name "
                    f"{base} too"
                )
        for name in self.modes:
            contrast, epochs = settings.resolve_contrast(name), settings.resolve_train(name).epochs
            if contrast and contrast.contrastive_weight_adaptive and contrast.ramp_epochs > epochs:
                raise ValueError(
                    f"contrast.ramp_epochs: found {contrast.ramp_epochs:g} for mode {name}, "
                    f"expected at most train.epochs ({epochs}): the weight would never "
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
