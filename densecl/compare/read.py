"""One experiment as it lies in a folder: its plan, its cells, and what stands beside them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from densecl import paths
from densecl.analysis.results import UNUSABLE, checked
from densecl.compare.image_contents import Contents
from densecl.compare.schemas import Cell, Config, Cost, Lenient, NotScored, Origin, Plan, Scored
from densecl.config.params import Report, load_params
from densecl.errors import DenseclError

COLUMNS = ["image_id", "label", "prediction", "correct", "confidence"]
CELL = re.compile(r"([a-z]+)-(\d+)\.json")
PLAIN = re.compile(r"(?!\.)[^/\\\0]+")  # a name that stays in its folder


T = TypeVar("T", bound=Lenient)


@dataclass(frozen=True)
class Experiment:
    origin: Origin
    plan: Plan
    cells: dict[tuple[str, str, int], Cell]
    missing: dict[tuple[str, str, int], str]  # planned cells that cannot be used, and why
    costs: dict[tuple[str, int], Cost]
    classes: tuple[
        str, ...
    ]  # wnids that the models know, in index order; () where no model's config is there
    notes: tuple[str, ...]

    @property
    def root(self) -> Path:
        return self.origin.root

    @cached_property
    def contents(self) -> Contents:
        return Contents(self.root)

    @cached_property
    def report(self) -> Report:
        known = {
            key: value for key, value in self.plan.values.items() if key in Report.model_fields
        }
        return Report.model_validate_json(TypeAdapter(dict[str, Any]).dump_json(known))

    @cached_property
    def params(self) -> dict[str, str] | None:
        """Every key that the experiment read, defaults filled in; None where no file tells."""
        return dict(flat(self.plan.params)) or None

    def seeds(self, dataset: str, mode: str) -> list[int]:
        return sorted(s for d, m, s in self.cells if (d, m) == (dataset, mode))

    def why(self, dataset: str, mode: str) -> str:
        said = [
            f"seed {s}: {text}"
            for (d, m, s), text in self.missing.items()
            if (d, m) == (dataset, mode)
        ]
        return "; ".join(said)


def read_experiment(origin: Origin) -> Experiment:
    """Every planned cell of the folder; DenseclError where it holds no evaluation at all."""
    notes = list(origin.notes)
    plan = _plan(origin, notes)
    cells: dict[tuple[str, str, int], Cell] = {}
    missing: dict[tuple[str, str, int], str] = {}
    for place in itertools.product(plan.datasets, plan.modes, plan.seeds):
        try:
            cells[place] = _cell(origin.root, *place)
        except FileNotFoundError as error:
            lost = Path(str(error.filename))
            inside = lost.is_relative_to(origin.root)
            missing[place] = f"no file {lost.relative_to(origin.root) if inside else lost.name}"
        except UNUSABLE as error:
            missing[place] = " ".join(_from_root(str(error), origin.root).split())[:200]
    if not cells:
        found = next(iter(missing.values()), "no cell is planned")
        raise DenseclError(
            f"{origin.name}: no evaluation that can be used ({found}); run `dvc repro` there, or "
            f"name a revision, "
            "an experiment or a folder that holds reports/evaluation and reports/predictions"
        )
    runs = list(itertools.product(plan.modes, plan.seeds))
    costs = {
        run: cost
        for run in runs
        if (cost := _beside(Cost, origin.root / paths.training(*run) / "cost.json", notes))
    }
    configs = (
        _beside(Config, origin.root / paths.model(*run) / "config.json", notes) for run in runs
    )
    classes = next((config.classes for config in configs if config), ())
    return Experiment(origin, plan, cells, missing, costs, classes, tuple(notes))


def _from_root(text: str, root: Path) -> str:
    """Without the folder, which is a place of this machine and often a temporary one."""
    for folder in {root.absolute().as_posix(), root.as_posix()} - {"."}:
        text = text.replace(f"{folder}/", "")
    return text


def _plan(origin: Origin, notes: list[str]) -> Plan:
    """The report's plan file, else what the evaluations and params.yaml tell."""
    path = origin.root / paths.plan("report")
    found = _read(Plan, path) if path.is_file() else _guessed(origin.root, notes)
    for name in (*found.modes, *found.datasets):
        if not PLAIN.fullmatch(name):
            raise DenseclError(
                f"{origin.name}: found {name!r} as the name of a set or mode; expected no path"
            )
    return found


def _guessed(root: Path, notes: list[str]) -> Plan:
    names = [
        (p.parent.name, m)
        for p in sorted((root / paths.EVALUATION).glob("*/*.json"))
        if (m := CELL.fullmatch(p.name))
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
    return Plan(
        modes=tuple(dict.fromkeys(m[1] for _, m in names)),
        seeds=tuple(sorted({int(m[2]) for _, m in names})),
        datasets=tuple(dict.fromkeys(s for s, _ in names)),
        params=params,
        values=params.get("report", {}),
    )


def _cell(root: Path, dataset: str, mode: str, seed: int) -> Cell:
    for file in (paths.evaluation(dataset, mode, seed), paths.predictions(dataset, mode, seed)):
        if not (root / file).is_file():
            raise ValueError(f"no file {file}")
    path = root / paths.evaluation(dataset, mode, seed)
    found: Scored | NotScored = TypeAdapter[Scored | NotScored](Scored | NotScored).validate_json(
        path.read_text(encoding="utf-8")
    )
    if isinstance(found, NotScored):
        raise ValueError(found.reason)
    rows = pd.read_parquet(root / paths.predictions(dataset, mode, seed), columns=COLUMNS)
    rows = checked(rows, f"{path.stem}.parquet")
    counted = float(rows["correct"].mean())
    if not abs(counted - found.top1) <= 1e-6:  # nor NaN
        raise ValueError(
            f"{path.name} says top1 {found.top1:.6f} but its predictions give {counted:.6f}; "
            f"evaluate the cell again"
        )
    return Cell(found, rows)


def _beside(kind: type[T], path: Path, notes: list[str]) -> T | None:
    """What is of use and not needed: None where it is not there or cannot be read."""
    try:
        return _read(kind, path) if path.is_file() else None
    except DenseclError as error:
        notes.append(str(error))
        return None


def _read(kind: type[T], path: Path) -> T:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DenseclError(
            f"{path.name}: {where}: {first['msg']}; written by a version too far from this one?"
        ) from None


def flat(values: Mapping[str, Any] | Sequence[Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys with their values as text."""
    for key, value in dict(values).items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "–" if value is None else str(value)
