"""What of an experiment's files is read: leniently, since two experiments may come from two
versions of the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field


class LenientModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ExperimentPlan(LenientModel):
    """What of a ReportPlan is read."""

    modes: tuple[str, ...]
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    values: dict[str, Any] = {}
    params: dict[str, Any] = {}


class EvaluationRecord(LenientModel):
    """What of an Evaluation is read."""

    protocol: str
    classes: int  # that were candidates
    top1: float
    per_class: dict[str, Any]  # by wnid: those with images
    preprocessing: dict[str, Any] = {}


class UnscoredRecord(LenientModel):
    reason: str


class CostRecord(LenientModel):
    """What of a training's cost.json is read; step times are medians of one measurement in the
    training's process.
    """

    device: str
    step_seconds: float = Field(gt=0)
    none_step_seconds: float = Field(gt=0)
    wall_seconds: float
    peak_memory_bytes: int
    images_per_second: float


@dataclass(frozen=True)
class CellPredictions:
    """One set, mode and seed: `rows` are indexed by image_id."""

    record: EvaluationRecord
    rows: pd.DataFrame


@dataclass(frozen=True)
class Origin:
    """Where an experiment came from."""

    name: str  # as it was asked for
    root: Path
    commit: str = ""  # of git; "": not known
    dirty: tuple[str, ...] = ()  # tracked files that differ from the commit
    notes: tuple[str, ...] = ()


class ModelConfig(LenientModel):
    """What of a model's config.json is read."""

    classes: tuple[str, ...]
