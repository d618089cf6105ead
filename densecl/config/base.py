"""What every section of `params.yaml` shares: strictness and the types of its numbers."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Mode = Literal["dense", "global", "none"]
MODES: tuple[Mode, ...] = get_args(Mode)
TRAIN_SET = "imagenet-train"
CONTROL_SET = "imagenet"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]
# YAML has only lists; strict mode would refuse them for a tuple.
Range = Annotated[tuple[Positive, Positive], Field(strict=False)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
NonEmptyNames = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]


class StrictModel(BaseModel):
    """A frozen model that rejects unknown keys and values of another type."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", populate_by_name=True)
