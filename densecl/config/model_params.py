"""Section `evaluate.models` of `params.yaml`: models that this pipeline does not train."""

import re
from typing import Any, Self

from pydantic import Field, model_validator

from densecl import paths
from densecl.config.base import MODES, StrictModel

RESERVED_NAMES = (*MODES, *paths.REGISTERED)


class OtherModelParams(StrictModel):
    """A timm model with the weights that timm publishes for it, or with those of a file. A text is
    short for one of the two: a path has a `/` or ends in `.safetensors`.
    """

    weights: str | None = Field(
        default=None,
        description="folder with model.safetensors and config.json, as training, `export` and "
        "timm's hub have it, or one .safetensors file; null: timm's weights for the architecture, "
        "from the hub's cache",
    )
    architecture: str | None = Field(
        default=None, description="name of a timm model; null: that in config.json"
    )
    model_args: dict[str, Any] = Field(
        default={}, description="arguments of timm's constructor, such as img_size"
    )
    classes: str | None = Field(
        default=None,
        description="file with a wnid per line in the order of the outputs, or a class list that "
        "timm knows, such as imagenet-1k; null: that in config.json, or of timm's weights",
    )

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        is_path = "/" in value or value.endswith(".safetensors")
        return {"weights" if is_path else "architecture": value}

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.weights is None and self.architecture is None:
            raise ValueError("found neither weights nor an architecture, expected one of them")
        if self.architecture is None and self.model_args:
            raise ValueError(
                "found model_args without an architecture; name both, or neither where config.json "
                "has them"
            )
        return self


def check_model_names(models: dict[str, OtherModelParams]) -> dict[str, OtherModelParams]:
    """The same models; ValueError for a name that is not one, or is that of a trained model."""
    for name in models:
        is_reserved = re.sub(r"-\d+$", "", name) in RESERVED_NAMES
        if is_reserved or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", name):
            raise ValueError(
                f"{name!r} cannot name a model: use a-z, 0-9, '-' and '_', and none of "
                f"{', '.join(RESERVED_NAMES)}, alone or with a seed, such as none-0"
            )
    return models
