"""Section `sweep`: what a sweep tries (docs/fair.md)."""

import math
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from densecl.config.base import MODES, Count, Fraction, Mode, StrictModel
from densecl.config.error_messages import format_errors
from densecl.config.mode_params import MODE_KEYS, ModeSettings
from densecl.config.training_params import DenseContrastParams, TrainParams

Choice = bool | int | float | str | None
SIGNIFICANT_DIGITS = 3  # of a value that is tried, so that presets can be read


def _is_none(value: object) -> bool:
    return value is None


class CandidatesParams(StrictModel):
    """What the trials try of one key: a range by two bounds, a range by a factor around the value
    of the mode, or a list of values. A list is short for `values`.
    """

    low: float | None = Field(default=None, exclude_if=_is_none, description="smallest value")
    high: float | None = Field(default=None, exclude_if=_is_none, description="largest value")
    log: bool = Field(
        default=False,
        exclude_if=operator.not_,
        description="as many trials between 1 and 10 as between 10 and 100",
    )
    factor: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = Field(
        default=None,
        exclude_if=_is_none,
        description="instead of low and high: from the value of the mode divided by this to that "
        "value times this; log",
    )
    values: Annotated[tuple[Choice, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, exclude_if=_is_none, description="instead of a range: these values"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, value: Any) -> Any:
        return {"values": value} if isinstance(value, list | tuple) else value

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        kinds = (self.low is not None, self.factor is not None, self.values is not None)
        if sum(kinds) != 1 or (self.low is None) != (self.high is None):
            raise ValueError("expected low and high, or factor, or a list of values; one of them")
        if self.low is None or self.high is None:
            return self
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"found low {self.low:g} and high {self.high:g}, expected low < high")
        if self.log and self.low <= 0:
            raise ValueError(f"found low {self.low:g} with log, expected a value above 0")
        return self


Candidates = dict[str, CandidatesParams]


class SpaceParams(StrictModel):
    """What the trials of a sweep vary: key -> a range, or a list of values."""

    train: Candidates = Field(
        default={
            "learning_rate": CandidatesParams(factor=10.0),
            "weight_decay": CandidatesParams(factor=10.0),
        },
        description="keys of `train` that may differ between modes -> what to try, in all modes",
    )
    contrast: Candidates = Field(
        default={
            "lambda_weight": CandidatesParams(low=0.05, high=0.9),
            "queue_size": CandidatesParams(factor=4.0),
            "temperature": CandidatesParams(low=0.05, high=0.5, log=True),
        },
        description="keys of `contrast`, of modes dense and global",
    )
    dense: Candidates = Field(
        default={
            "correspondence_features": CandidatesParams(values=("dense", "backbone", "geometric")),
            "sampling_strategy": CandidatesParams(values=("random", "diverse", "hardest")),
        },
        description="keys of `contrast` of mode dense, beside or instead of those above; with "
        "`correspondence_features: geometric` the filter is none",
    )
    global_: Candidates = Field(
        default={},
        alias="global",
        description="keys of `contrast` of mode global, beside or instead of those above",
    )

    def get_candidates(self, mode: Mode) -> Candidates:
        """Dotted key, such as `train.learning_rate`, -> what its mode tries."""
        own = {"dense": self.dense, "global": self.global_, "none": {}}[mode]
        contrast = {} if mode == "none" else self.contrast | own
        sections = {"train": self.train, "contrast": contrast}
        return {f"{s}.{key}": tried for s, keys in sections.items() for key, tried in keys.items()}


class SweepParams(StrictModel):
    """Equal tuning of the modes; read by `python -m pipelines sweep` only."""

    seed: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="seed of the values that are tried, of the split and of every trial's training",
    )
    epochs: Count | None = Field(
        default=None, description="epochs of a trial; null: those of `train`"
    )
    held_back: Annotated[Fraction, Field(gt=0, lt=1)] = Field(
        default=0.2,
        description="share of the training images of each class that trials are not trained on: "
        "half of them choose the values, the other half measure what tuning gained",
    )
    sampler: Literal["random", "tpe"] = Field(
        default="random",
        description="how values are drawn: random, the same in all modes and independent of one "
        "another; or tpe, by Optuna from the trials before",
    )
    storage: str | None = Field(
        default=None,
        description="address of the database of trials that several machines share, such as "
        "postgresql://host/trials; null: a SQLite file in the folder of the sweep",
    )
    space: SpaceParams = SpaceParams()


class Interval(NamedTuple):
    """A range with its bounds worked out."""

    low: float
    high: float
    log: bool
    is_integer: bool

    @property
    def bounds(self) -> tuple[Choice, ...]:
        return (int(self.low), int(self.high)) if self.is_integer else (self.low, self.high)


def resolve_space(
    space: SpaceParams, settings: ModeSettings, mode: Mode
) -> dict[str, Interval | tuple[Choice, ...]]:
    """Dotted key -> what the mode tries; ValueError names a key of `sweep.space` that cannot be."""
    resolved: dict[str, Interval | tuple[Choice, ...]] = {}
    for key, tried in space.get_candidates(mode).items():
        try:
            current = _read_value(settings, mode, key)
            candidates = tried.values or _resolve_range(tried, current)
            for value in candidates.bounds if isinstance(candidates, Interval) else candidates:
                apply_values(settings, mode, {key: value})
        except ValueError as error:
            raise ValueError(f"sweep.space: {key} of mode {mode}: {error}") from None
        resolved[key] = candidates
    return resolved


def apply_values(settings: ModeSettings, mode: Mode, values: Mapping[str, Choice]) -> ModeSettings:
    """The settings with these values of a mode, by dotted key; ValueError if they are invalid."""
    contrast = {key.partition(".")[2]: v for key, v in values.items() if key.startswith("contrast")}
    train = {key.partition(".")[2]: v for key, v in values.items() if key.startswith("train")}
    if contrast.get("correspondence_features") == "geometric":
        contrast["correspondence_filter"] = "none"
    section = {"dense": "dense", "global": "global_", "none": "none"}[mode]
    update: dict[str, Any] = {
        "train": _merge(settings.train, section, train),
        "contrast": settings.contrast
        if mode == "none"
        else _merge(settings.contrast, section, contrast),
    }
    changed = settings.model_copy(update=update)
    try:
        changed.resolve_train(mode)
        changed.resolve_contrast(mode)
    except ValidationError as error:
        model = DenseContrastParams if "contrast" in str(error.title).lower() else TrainParams
        raise ValueError("; ".join(format_errors(error, model))) from None
    return changed


def _merge(section: Any, mode: str, values: Mapping[str, Any]) -> Any:
    return section.model_copy(update={mode: {**getattr(section, mode), **values}})


def _read_value(settings: ModeSettings, mode: Mode, key: str) -> Any:
    """The value that the mode has; ValueError if it has no such key, or shares it."""
    section, _, name = key.partition(".")
    if section == "train" and name not in MODE_KEYS:
        shared = name in TrainParams.model_fields
        reason = "which all modes share" if shared else "which train does not have"
        raise ValueError(f"found {name}, {reason}; expected one of {', '.join(MODE_KEYS)}")
    contrast = settings.resolve_contrast(mode)
    values: StrictModel = settings.resolve_train(mode)
    if section == "contrast" and contrast is not None:
        values = contrast
    known = type(values).model_fields
    if name not in known:
        raise ValueError(f"found {name}, expected one of {', '.join(known)}")
    return getattr(values, name)


def _resolve_range(tried: CandidatesParams, current: Any) -> Interval:
    if isinstance(current, bool) or not isinstance(current, int | float):
        raise ValueError(f"found a range, but its value is {current}; expected a list of values")
    is_integer = isinstance(current, int)
    if tried.low is not None and tried.high is not None:
        if is_integer and not (tried.low.is_integer() and tried.high.is_integer()):
            raise ValueError(f"found {tried.low:g} to {tried.high:g}, expected whole numbers")
        return Interval(tried.low, tried.high, tried.log, is_integer)
    factor = tried.factor or 1.0
    if current <= 0:
        raise ValueError(f"found a factor around {current:g}; give low and high instead")
    low, high = current / factor, current * factor
    if is_integer:
        low, high = max(1, round(low)), round(high)
    if low >= high:
        raise ValueError(f"found a factor of {factor:g} around {current}, which leaves {high:g}")
    return Interval(low, high, True, is_integer)


def round_value(value: Choice) -> Choice:
    """A sampled value to SIGNIFICANT_DIGITS; whole numbers and texts stay as they are."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}") if isinstance(value, float) else value


def check_sweep(sweep: SweepParams, settings: ModeSettings) -> None:
    """Raise ValueError, which names the key, if a mode cannot try what `sweep.space` names."""
    for mode in MODES:
        resolve_space(sweep.space, settings, mode)
