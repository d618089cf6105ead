"""Values of `train` per mode, and `variants`: modes of their own that differ from one of the three
in a few keys.

A mode's *name* is a string; its *base* (dense, global or none) decides which code runs. The three
modes are their own bases.
"""

from typing import Any

from pydantic import Field, ValidationError

from densecl.config.base import MODES, Mode, StrictModel
from densecl.config.error_messages import format_errors
from densecl.config.training_params import (
    ContrastParams,
    DenseContrastParams,
    GlobalContrastParams,
    TrainParams,
)

# Every key of `train` is in one of three groups (tests/test_variants.py). A fair comparison may set
# these per mode, as each objective has its own best value:
MODE_KEYS = (
    "learning_rate",
    "learning_rate_batch",
    "layer_decay",
    "drop_path",
    "ema_decay",
    "weight_decay",
    "warmup_epochs",
    "grad_clip",
    "label_smoothing",
)
ERASING_KEYS = ("random_erasing", "random_erasing_count")
# These are what the modes are compared at; a variant may differ in them.
SHARED_KEYS = (
    *("batch_size", "epochs", "grad_accumulation", "steps_per_epoch", "precision"),
    *ERASING_KEYS,
)
# Steps of modes that differ in these have no ratio of costs: one has more images, another share of
# steps with diagnostics, or rectangles that are drawn before the step.
BATCH_KEYS = ("batch_size", "grad_accumulation", "steps_per_epoch", *ERASING_KEYS)
# These say how a training is carried out and watched; every model has the same.
EXECUTION_KEYS = (
    *("compile", "threads", "validate_on"),
    *(name for name, field in TrainParams.model_fields.items() if field.exclude),
)


def _is_empty(overrides: dict[str, Any]) -> bool:
    return not overrides


class ModeTrainParams(TrainParams):
    """Values of all modes, and overrides per mode."""

    # Empty ones are in no plan file: params without them have the plan that they always had.
    dense: dict[str, Any] = Field(
        default={},
        exclude_if=_is_empty,
        description="keys of this section that differ in mode dense: "
        f"{', '.join(MODE_KEYS[:-1])} or {MODE_KEYS[-1]}",
    )
    global_: dict[str, Any] = Field(
        default={},
        exclude_if=_is_empty,
        alias="global",
        description="keys of this section that differ in mode global, likewise",
    )
    none: dict[str, Any] = Field(
        default={},
        exclude_if=_is_empty,
        description="keys of this section that differ in mode none, likewise",
    )

    def get_overrides(self, mode: Mode) -> dict[str, Any]:
        return {"dense": self.dense, "global": self.global_, "none": self.none}[mode]

    def resolve_mode(self, mode: Mode) -> TrainParams:
        """The values that `mode` reads."""
        values = {name: getattr(self, name) for name in TrainParams.model_fields}
        return TrainParams.model_validate(values | self.get_overrides(mode))


class VariantParams(StrictModel):
    """A mode of its own, if `modes` names it: its base with other values of a few keys."""

    base: Mode = Field(description="mode whose objective it has, and which it is compared with")
    contrast: dict[str, Any] = Field(
        default={}, description="keys of `contrast` that differ from those of its base"
    )
    train: dict[str, Any] = Field(
        default={},
        description="keys of `train` that differ from those of its base; of those that shape the "
        f"training, thus none of {', '.join(EXECUTION_KEYS)}",
    )


class ModeSettings(StrictModel):
    """The sections that decide what a mode or a variant is trained with."""

    contrast: ContrastParams = ContrastParams()
    train: ModeTrainParams = ModeTrainParams()
    variants: dict[str, VariantParams] = Field(default={})

    def resolve_base(self, name: str) -> Mode:
        """The mode whose objective a mode or variant has; KeyError for another name."""
        mode = next((mode for mode in MODES if mode == name), None)
        return mode or self.variants[name].base

    def resolve_contrast(self, name: str) -> GlobalContrastParams | None:
        """The values of `contrast` of a mode or variant; None if its base is none."""
        values = self.contrast.resolve_mode(self.resolve_base(name))
        if values is None or name not in self.variants:
            return values
        return type(values).model_validate(dict(values) | self.variants[name].contrast)

    def resolve_train(self, name: str) -> TrainParams:
        """The values of `train` of a mode or variant."""
        values = self.train.resolve_mode(self.resolve_base(name))
        if name not in self.variants:
            return values
        return TrainParams.model_validate(dict(values) | self.variants[name].train)

    def check(self) -> None:
        """Raise ValueError, which names the key, unless every mode and variant can be resolved."""
        for mode in MODES:
            self._check_mode_overrides(mode)
        for name in self.variants:
            self._check_variant(name)

    def _check_mode_overrides(self, mode: Mode) -> None:
        shared = [*SHARED_KEYS, *EXECUTION_KEYS]
        if wrong := [key for key in self.train.get_overrides(mode) if key in shared]:
            raise ValueError(
                f"train.{mode}.{wrong[0]}: found a value per mode, expected one of all modes, "
                f"which are compared at the same {wrong[0]}; set train.{wrong[0]}"
                + (", or name a variant (variants)" if wrong[0] in SHARED_KEYS else "")
            )
        self._check_resolved(mode, f"contrast.{mode}", f"train.{mode}")

    def _check_variant(self, name: str) -> None:
        variant = self.variants[name]
        if variant.base == "none" and variant.contrast:
            raise ValueError(
                f"variants.{name}.contrast: found {', '.join(variant.contrast)}, expected no key: "
                "its base none has no contrastive loss"
            )
        if wrong := [key for key in variant.train if key in EXECUTION_KEYS]:
            raise ValueError(
                f"variants.{name}.train.{wrong[0]}: found a value for a variant, expected keys "
                f"that shape the training; set train.{wrong[0]}, which all models share"
            )
        if not (variant.contrast or variant.train):
            raise ValueError(
                f"variants.{name}: found no key that differs from {variant.base}, expected some "
                "in contrast or train"
            )
        self._check_resolved(name, f"variants.{name}.contrast", f"variants.{name}.train")

    def _check_resolved(self, name: str, contrast_key: str, train_key: str) -> None:
        is_dense = self.resolve_base(name) == "dense"
        contrast_type = DenseContrastParams if is_dense else GlobalContrastParams
        for key, resolve, model in (
            (contrast_key, self.resolve_contrast, contrast_type),
            (train_key, self.resolve_train, TrainParams),
        ):
            try:
                resolve(name)
            except ValidationError as error:
                raise ValueError(f"{key}: {'; '.join(format_errors(error, model))}") from None
