"""One experiment read from a folder: its plan, its cells and their context."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from densecl import paths
from densecl.analysis.results import READ_ERRORS, validate_predictions
from densecl.compare.image_contents import ImageContents
from densecl.compare.schemas import (
    CellPredictions,
    CostRecord,
    EvaluationRecord,
    ExperimentPlan,
    LenientModel,
    ModelConfig,
    Origin,
    UnscoredRecord,
)
from densecl.config.flatten import flatten
from densecl.config.params import ReportParams, load_params
from densecl.errors import DenseclError

COLUMNS = ["image_id", "label", "prediction", "correct", "confidence"]
CELL_FILE = re.compile(r"([a-z]+)-(\d+)\.json")
SAFE_NAME = re.compile(r"(?!\.)[^/\\\0]+")  # a name that stays in its folder


T = TypeVar("T", bound=LenientModel)


@dataclass(frozen=True)
class Experiment:
    origin: Origin
    plan: ExperimentPlan
    cells: dict[tuple[str, str, int], CellPredictions]
    missing: dict[tuple[str, str, int], str]  # planned cells that cannot be used, and why
    costs: dict[tuple[str, int], CostRecord]
    classes: tuple[
        str, ...
    ]  # wnids that the models know, in index order; () where no model's config is there
    notes: tuple[str, ...]

    @property
    def root(self) -> Path:
        return self.origin.root

    @cached_property
    def contents(self) -> ImageContents:
        return ImageContents(self.root)

    @cached_property
    def report_params(self) -> ReportParams:
        known = {
            key: value
            for key, value in self.plan.values.items()
            if key in ReportParams.model_fields
        }
        return ReportParams.model_validate_json(TypeAdapter(dict[str, Any]).dump_json(known))

    @cached_property
    def params(self) -> dict[str, str] | None:
        """Every key that the experiment read, defaults filled in; None where no file tells."""
        flat = flatten(dict(self.plan.params))
        return {key: "–" if value is None else str(value) for key, value in flat.items()} or None

    def list_seeds(self, dataset: str, mode: str) -> list[int]:
        return sorted(s for d, m, s in self.cells if (d, m) == (dataset, mode))

    def describe_missing(self, dataset: str, mode: str) -> str:
        reasons = [
            f"seed {s}: {text}"
            for (d, m, s), text in self.missing.items()
            if (d, m) == (dataset, mode)
        ]
        return "; ".join(reasons)


def read_experiment(origin: Origin) -> Experiment:
    """Every planned cell of the folder; DenseclError where it holds no evaluation at all."""
    notes = list(origin.notes)
    plan = _read_plan(origin, notes)
    cells: dict[tuple[str, str, int], CellPredictions] = {}
    missing: dict[tuple[str, str, int], str] = {}
    for cell_key in itertools.product(plan.datasets, plan.modes, plan.seeds):
        try:
            cells[cell_key] = _read_cell(origin.root, *cell_key)
        except FileNotFoundError as error:
            path = Path(str(error.filename))
            inside = path.is_relative_to(origin.root)
            missing[cell_key] = f"no file {path.relative_to(origin.root) if inside else path.name}"
        except READ_ERRORS as error:
            missing[cell_key] = " ".join(_remove_root(str(error), origin.root).split())[:200]
    if not cells:
        reason = next(iter(missing.values()), "no cell is planned")
        raise DenseclError(
            f"{origin.name}: no evaluation that can be used ({reason}); run `dvc repro` there, or "
            f"name a revision, "
            "an experiment or a folder that holds reports/evaluation and reports/predictions"
        )
    runs = list(itertools.product(plan.modes, plan.seeds))
    costs = {
        run: cost
        for run in runs
        if (
            cost := _read_optional(
                CostRecord, origin.root / paths.training_folder(*run) / "cost.json", notes
            )
        )
    }
    configs = (
        _read_optional(ModelConfig, origin.root / paths.model_folder(*run) / "config.json", notes)
        for run in runs
    )
    classes = next((config.classes for config in configs if config), ())
    return Experiment(origin, plan, cells, missing, costs, classes, tuple(notes))


def _remove_root(text: str, root: Path) -> str:
    """Without the folder, which is a place of this machine and often a temporary one."""
    for folder in {root.absolute().as_posix(), root.as_posix()} - {"."}:
        text = text.replace(f"{folder}/", "")
    return text


def _read_plan(origin: Origin, notes: list[str]) -> ExperimentPlan:
    """The report's plan file, else what the evaluations and params.yaml tell."""
    path = origin.root / paths.plan_file("report")
    plan = _read_json(ExperimentPlan, path) if path.is_file() else _infer_plan(origin.root, notes)
    for name in (*plan.modes, *plan.datasets):
        if not SAFE_NAME.fullmatch(name):
            raise DenseclError(
                f"{origin.name}: found {name!r} as the name of a set or mode; expected no path"
            )
    return plan


def _infer_plan(root: Path, notes: list[str]) -> ExperimentPlan:
    names = [
        (p.parent.name, m)
        for p in sorted((root / paths.EVALUATION).glob("*/*.json"))
        if (m := CELL_FILE.fullmatch(p.name))
    ]
    params: dict[str, Any] = {}
    if (root / paths.PARAMS).is_file():
        try:
            params = load_params(root / paths.PARAMS).model_dump(mode="json", by_alias=True)
        except DenseclError as error:
            notes.append(
                f"its params.yaml cannot be read by this version: "
                f"{str(error).splitlines()[0].split(': ', 1)[-1]}"
            )
    return ExperimentPlan(
        modes=tuple(dict.fromkeys(m[1] for _, m in names)),
        seeds=tuple(sorted({int(m[2]) for _, m in names})),
        datasets=tuple(dict.fromkeys(s for s, _ in names)),
        params=params,
        values=params.get("report", {}),
    )


def _read_cell(root: Path, dataset: str, mode: str, seed: int) -> CellPredictions:
    for file in (
        paths.evaluation_file(dataset, mode, seed),
        paths.predictions_file(dataset, mode, seed),
    ):
        if not (root / file).is_file():
            raise ValueError(f"no file {file}")
    path = root / paths.evaluation_file(dataset, mode, seed)
    record: EvaluationRecord | UnscoredRecord = TypeAdapter[EvaluationRecord | UnscoredRecord](
        EvaluationRecord | UnscoredRecord
    ).validate_json(path.read_text(encoding="utf-8"))
    if isinstance(record, UnscoredRecord):
        raise ValueError(record.reason)
    rows = pd.read_parquet(root / paths.predictions_file(dataset, mode, seed), columns=COLUMNS)
    rows = validate_predictions(rows, f"{path.stem}.parquet")
    recomputed = float(rows["correct"].mean())
    if not abs(recomputed - record.top1) <= 1e-6:  # nor NaN
        raise ValueError(
            f"{path.name} says top1 {record.top1:.6f} but its predictions give {recomputed:.6f}; "
            f"evaluate the cell again"
        )
    return CellPredictions(record, rows)


def _read_optional(model: type[T], path: Path, notes: list[str]) -> T | None:
    """What is of use and not needed: None where it is not there or cannot be read."""
    try:
        return _read_json(model, path) if path.is_file() else None
    except DenseclError as error:
        notes.append(str(error))
        return None


def _read_json(model: type[T], path: Path) -> T:
    try:
        return model.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first_error = error.errors(include_url=False)[0]
        field = ".".join(map(str, first_error["loc"]))
        raise DenseclError(
            f"{path.name}: {field}: {first_error['msg']}; written by a version too far from this "
            f"one?"
        ) from None
