"""Read one experiment from a folder: its plan, its cells and their context.

Leniently: two experiments may come from two versions of the code, so unknown keys are ignored.
"""

import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from densecl import paths
from densecl.analysis.results import READ_ERRORS, read_predictions, share_names
from densecl.config.flatten import flatten
from densecl.config.params import MODES, ReportParams, load_params
from densecl.cost.result import CostReport
from densecl.errors import DenseclError
from densecl.pages.formatting import clip_list

COLUMNS = ("image_id", "label", "prediction", "correct", "confidence")
SAFE_NAME = re.compile(r"(?!\.)[^/\\\0]+")  # a name that stays in its folder


class LenientModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ExperimentPlan(LenientModel):
    """The fields of ReportPlan that are compared."""

    modes: tuple[str, ...]
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    values: dict[str, Any] = {}
    params: dict[str, Any] = {}


class EvaluationRecord(LenientModel):
    """The fields of Evaluation that are compared."""

    protocol: str
    classes: int  # that were candidates
    top1: float
    chance: float | None = None  # None: 1 / classes
    per_class: dict[str, Any]  # by wnid: those with images


class UnscoredRecord(LenientModel):
    reason: str


class ModelConfig(LenientModel):
    """The fields of a model's config.json that are compared."""

    classes: tuple[str, ...]


T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True)
class Origin:
    """Source of an experiment."""

    name: str  # as it was asked for
    root: Path
    commit: str = ""  # of git; "": not known
    dirty: tuple[str, ...] = ()  # tracked files that differ from the commit
    notes: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()  # stages that its dvc.lock does not describe, and why
    unchecked: tuple[str, ...] = ()  # outs that are not there, without which that is not known

    def describe_unchecked(self) -> str:
        return (
            f"whether {paths.DVC_LOCK} was made from the params, code and files beside it could "
            f"not be checked: {clip_list(self.unchecked, 3)} is not there as it was recorded; "
            "`dvc fetch` for a revision, `dvc checkout` in a folder"
        )


class CellPredictions(NamedTuple):
    """Results of one dataset, mode and seed: `rows` are indexed by image_id."""

    record: EvaluationRecord
    rows: pd.DataFrame


class ManifestContents(NamedTuple):
    digest: str  # of the file's bytes
    rows: pd.DataFrame | None  # sha256 and wnid by image_id; None: the file cannot be read


@dataclass(frozen=True)
class Experiment:
    origin: Origin
    plan: ExperimentPlan
    cells: dict[tuple[str, str, int], CellPredictions]
    missing: dict[tuple[str, str, int], str]  # planned cells that cannot be used, and why
    cost: CostReport | None
    classes: tuple[str, ...]  # wnids in index order; () where no model's config is there
    notes: tuple[str, ...]

    @cached_property
    def manifests(self) -> dict[str, ManifestContents]:
        """Manifests by dataset, which identify images by content rather than by name alone."""
        files = (self.origin.root / paths.MANIFESTS).glob("*.parquet")
        return {path.stem: _read_manifest(path) for path in sorted(files, key=lambda p: p.stem)}

    @cached_property
    def report_params(self) -> ReportParams:
        return ReportParams.model_validate(self.plan.values, extra="ignore")

    @cached_property
    def params(self) -> dict[str, str] | None:
        """All params of the experiment, with defaults; None if no file states them."""
        flat = flatten(dict(self.plan.params))
        return {key: "–" if value is None else str(value) for key, value in flat.items()} or None

    def list_seeds(self, dataset: str, mode: str) -> list[int]:
        return sorted(s for d, m, s in self.cells if (d, m) == (dataset, mode))


def read_experiment(origin: Origin) -> Experiment:
    """Read every planned cell of a folder; DenseclError if it has no evaluation at all."""
    root, notes = origin.root, list(origin.notes)
    if origin.unchecked:
        notes.append(origin.describe_unchecked())
    plan = _read_plan(origin, notes)
    cells: dict[tuple[str, str, int], CellPredictions] = {}
    missing: dict[tuple[str, str, int], str] = {}
    firsts: dict[str, pd.DataFrame] = {}  # of each dataset
    for key in itertools.product(plan.datasets, plan.modes, plan.seeds):
        try:
            cells[key] = _read_cell(root, *key)
        except READ_ERRORS as error:
            missing[key] = " ".join(_remove_root(str(error), root).split())[:200]
            continue
        first = firsts.setdefault(key[0], cells[key].rows)
        share_names(cells[key].rows, first)
    if not cells:
        reason = next(iter(missing.values()), "no cell is planned")
        raise DenseclError(
            f"{origin.name}: no usable evaluation ({reason}); run `dvc repro` in that project, or "
            "name a revision, an experiment or a folder that contains reports/evaluation and "
            "reports/predictions"
        )
    runs = list(itertools.product(plan.modes, plan.seeds))
    cost = _read_optional(CostReport, root / paths.COST, notes)
    configs = (
        _read_optional(ModelConfig, root / paths.model_folder(*run) / "config.json", notes)
        for run in runs
    )
    classes = next((config.classes for config in configs if config), ())
    return Experiment(origin, plan, cells, missing, cost, classes, tuple(notes))


def _remove_root(text: str, root: Path) -> str:
    """Remove the folder's path from a message: it is specific to this machine, and often
    temporary.
    """
    for folder in {root.absolute().as_posix(), root.as_posix()} - {"."}:
        text = text.replace(f"{folder}/", "")
    return text


def _read_manifest(path: Path) -> ManifestContents:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    try:
        rows = pd.read_parquet(path, columns=["image_id", "sha256", "wnid"])
    except READ_ERRORS:
        return ManifestContents(digest, None)
    return ManifestContents(digest, rows.drop_duplicates("image_id").set_index("image_id"))


def _read_plan(origin: Origin, notes: list[str]) -> ExperimentPlan:
    """The report's plan file, else a plan inferred from the evaluations and params.yaml."""
    path = origin.root / paths.plan_file("report")
    plan = _read_json(ExperimentPlan, path) if path.is_file() else _infer_plan(origin.root, notes)
    for name in (*plan.modes, *plan.datasets):
        if not SAFE_NAME.fullmatch(name):
            raise DenseclError(
                f"{origin.name}: found {name!r} as the name of a dataset or mode; expected no path"
            )
    return plan


def _infer_plan(root: Path, notes: list[str]) -> ExperimentPlan:
    params: dict[str, Any] = {}
    if (root / paths.PARAMS).is_file():
        try:
            params = load_params(root / paths.PARAMS).model_dump(mode="json", by_alias=True)
        except DenseclError as error:
            notes.append(
                f"its params.yaml cannot be read by this version: "
                f"{str(error).splitlines()[0].split(': ', 1)[-1]}"
            )
    run_name = _match_run_names((*MODES, *params.get("variants", {})))
    files = sorted((root / paths.EVALUATION).glob("*/*.json"))
    # <mode>-<seed>/<dataset>.json, or <dataset>/<mode>-<seed>.json of an earlier version.
    names = [
        (dataset, run)
        for file in files
        for name, dataset in ((file.parent.name, file.stem), (file.stem, file.parent.name))
        if (run := run_name.fullmatch(name))
    ]
    return ExperimentPlan(
        modes=tuple(dict.fromkeys(m[1] for _, m in names)),
        seeds=tuple(sorted({int(m[2]) for _, m in names})),
        datasets=tuple(dict.fromkeys(s for s, _ in names)),
        params=params,
        values=params.get("report", {}),
    )


def _match_run_names(modes: Sequence[str]) -> re.Pattern[str]:
    """`<mode>-<seed>` of these modes: other models have names like resnet-50."""
    return re.compile(rf"({'|'.join(map(re.escape, modes))})-(\d+)")


def _read_cell(root: Path, dataset: str, mode: str, seed: int) -> CellPredictions:
    evaluation = _find_cell_file(root, paths.evaluation_file(dataset, mode, seed))
    predictions = _find_cell_file(root, paths.predictions_file(dataset, mode, seed))
    for file in (evaluation, predictions):
        if not (root / file).is_file():
            raise ValueError(f"no file {file}")
    record: EvaluationRecord | UnscoredRecord = TypeAdapter[EvaluationRecord | UnscoredRecord](
        EvaluationRecord | UnscoredRecord
    ).validate_json((root / evaluation).read_bytes())
    if isinstance(record, UnscoredRecord):
        raise ValueError(record.reason)
    return CellPredictions(
        record, read_predictions(root / predictions, dataset, record.top1, COLUMNS)
    )


def _find_cell_file(root: Path, file: Path) -> Path:
    """`<mode>-<seed>/<dataset>`, or `<dataset>/<mode>-<seed>` if only an earlier version's file is
    there.
    """
    earlier = file.parent.parent / file.stem / f"{file.parent.name}{file.suffix}"
    return earlier if (root / earlier).is_file() and not (root / file).exists() else file


def _read_optional(model: type[T], path: Path, notes: list[str]) -> T | None:
    """An optional file; None if it is missing or unreadable."""
    try:
        return _read_json(model, path) if path.is_file() else None
    except DenseclError as error:
        notes.append(str(error))
        return None


def _read_json(model: type[T], path: Path) -> T:
    try:
        return model.model_validate_json(path.read_bytes(), extra="ignore")
    except ValidationError as error:
        first_error = error.errors(include_url=False)[0]
        field = ".".join(map(str, first_error["loc"]))
        raise DenseclError(
            f"{path.name}: {field}: {first_error['msg']}; written by a version too far from this "
            f"one?"
        ) from None
