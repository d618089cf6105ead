"""The file of a study, checked before anything runs."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from densecl import paths
from densecl.analysis.claims import OCCLUSION, SHIFT, SPATIAL, VIEWPOINT
from densecl.config.base import Count, Names, StrictModel
from densecl.config.error_messages import format_errors
from densecl.config.params import Params, ParamsError
from densecl.config.titles import get_title
from densecl.config.yaml_loader import load_yaml
from densecl.pages.formatting import clip_list


class StudyFile(StrictModel):
    """A question, and how it will be answered."""

    question: str
    params: str  # file of params, before tuning
    budget: Annotated[int, Field(ge=2)]  # trials of each mode
    # Claim, as the report names it -> what is expected, and why.
    expected: dict[str, str] = Field(default={})
    limits: Names = ()  # of the conclusions, known before the runs
    ablations: str | None = None  # file of variants; null: none
    ablation_seeds: Count = 3  # the first seeds of the params
    images: Count | None = None  # to train on, for the estimate of hours before any is listed
    decided_later: Names = ()  # what was decided after looking at results, one sentence each


def read_study(path: Path) -> StudyFile:
    """Raises ParamsError with one line per problem."""
    try:
        study = StudyFile.model_validate(load_yaml(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; expected a study, as in studies/") from None
    except ValidationError as error:
        lines = (f"{path}: {line}" for line in format_errors(error, StudyFile))
        raise ParamsError("\n".join(lines)) from None
    except ValueError as error:
        raise ParamsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    for written in (paths.PARAMS, paths.tuned_preset(path.stem)):
        if Path(study.params).resolve() == written.resolve():
            raise ParamsError(
                f"{path}: params: found {study.params}, which the study replaces by its tuned "
                "values; expected another file: name a copy"
            )
    return study


def check_expected(file: Path, study: StudyFile, params: Params) -> None:
    """ParamsError where something is expected of a claim that the report does not have."""
    values = params.model_dump()
    titles = [get_title(values, name) for name in params.evaluate.datasets]
    names = [claim.name for claim in (OCCLUSION, VIEWPOINT, SHIFT, SPATIAL)]
    known = {*names, *titles, *(f"{VIEWPOINT.name}: dataset {title}" for title in titles)}
    if unknown := [name for name in study.expected if name not in known]:
        raise ParamsError(
            f"{file}: expected.{unknown[0]}: no such claim, expected {', '.join(names)}, or the "
            f"title of a dataset ({clip_list(titles, 8)})"
        )
