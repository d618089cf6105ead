"""The images that A and B share, paired row by row: the same name, the same content, the same
class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from densecl.analysis.statistics import Outcomes
from densecl.compare.read import Experiment
from densecl.compare.schemas import EvaluationRecord


class UnpairedCellError(ValueError):
    """Nothing of a cell can be compared; the message says why."""


@dataclass(frozen=True)
class UnmatchedCounts:
    """Images of a cell that are not compared."""

    only_a: int = 0
    only_b: int = 0
    changed: int = 0  # another content under the same name
    relabelled: int = 0  # another class
    partly: int = 0  # not scored for every common seed

    def __str__(self) -> str:
        kinds = (
            (self.only_a, "in A only"),
            (self.only_b, "in B only"),
            (self.changed, "whose content differs"),
            (self.relabelled, "of another class"),
            (self.partly, "not scored for every seed"),
        )
        return ", ".join(f"{count:,} {kind}" for count, kind in kinds if count)


NO_UNMATCHED = UnmatchedCounts()


@dataclass(frozen=True)
class PairedCell:
    """a, b [n, S]: 1.0 where correct; one row per image, one column per seed."""

    seeds: tuple[int, ...]
    a: Outcomes
    b: Outcomes
    unmatched: UnmatchedCounts
    identical: bool  # every prediction with its confidence
    class_mismatch: str  # why the two answered different questions; "": they did not
    by_content: bool  # contents were compared, not names alone


def build_paired_cell(a: Experiment, b: Experiment, dataset: str, mode: str) -> PairedCell:
    """The cells of the seeds that both have; Unpaired where no seed or no image is common."""
    seeds = sorted({*a.list_seeds(dataset, mode)} & {*b.list_seeds(dataset, mode)})
    if not seeds:
        raise UnpairedCellError(_describe_no_seed(a, b, dataset, mode))
    rows_a, rows_b = ([x.cells[dataset, mode, seed].rows for seed in seeds] for x in (a, b))
    same_bytes = a.contents.get_digest(dataset) == b.contents.get_digest(dataset) != ""
    manifests = None if same_bytes else _read_manifests(a, b, dataset)
    index, unmatched = _match_images(rows_a, rows_b, manifests)
    if not len(index):
        raise UnpairedCellError(f"no image in common: {unmatched}")
    rows_a, rows_b = ([frame.loc[index] for frame in side] for side in (rows_a, rows_b))
    records = [x.cells[dataset, mode, seeds[0]].record for x in (a, b)]
    return PairedCell(
        tuple(seeds),
        _build_outcomes(rows_a),
        _build_outcomes(rows_b),
        unmatched,
        identical=all(_has_same_answers(f, s) for f, s in zip(rows_a, rows_b, strict=True)),
        class_mismatch=describe_class_mismatch(*records),
        by_content=same_bytes or manifests is not None,
    )


def describe_class_mismatch(a: EvaluationRecord, b: EvaluationRecord) -> str:
    """Why A and B chose among different candidates; "": they chose among the same classes.

    Where a set is scored over the classes that have images, these are `per_class`; where a list is
    given or published, one side may lack images of some of them.
    """
    if a.classes != b.classes:
        return f"A chose among {a.classes} classes and B among {b.classes}"
    classes_a, classes_b = a.per_class.keys(), b.per_class.keys()
    if not (classes_a <= classes_b or classes_b <= classes_a):
        return (
            f"A and B chose among different classes "
            f"({len(classes_a & classes_b)} of {a.classes} in common)"
        )
    return ""


def _describe_no_seed(a: Experiment, b: Experiment, dataset: str, mode: str) -> str:
    reasons = [
        f"{name}: {reason}"
        for name, experiment in (("A", a), ("B", b))
        if (reason := experiment.describe_missing(dataset, mode))
    ]
    return (
        "; ".join(reasons)
        or f"no seed in common (A: {a.list_seeds(dataset, mode)}, B: {b.list_seeds(dataset, mode)})"
    )


def _read_manifests(
    a: Experiment, b: Experiment, dataset: str
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    manifest_a, manifest_b = a.contents.get_manifest(dataset), b.contents.get_manifest(dataset)
    return None if manifest_a is None or manifest_b is None else (manifest_a, manifest_b)


def _match_images(
    rows_a: Sequence[pd.DataFrame],
    rows_b: Sequence[pd.DataFrame],
    manifests: tuple[pd.DataFrame, pd.DataFrame] | None,
) -> tuple[pd.Index, UnmatchedCounts]:
    """Names of the images to compare, sorted, and how many are left out for what; without manifests
    by name and label.
    """
    names_a, names_b = (_merge_indices(side) for side in (rows_a, rows_b))
    common = names_a.intersection(names_b)
    index = common
    for frame in (*rows_a, *rows_b):
        index = index.intersection(frame.index)
    scored = len(index)
    if manifests:
        manifest_a, manifest_b = (frame.reindex(index) for frame in manifests)
        same_content = (manifest_a["sha256"] == manifest_b["sha256"]).to_numpy(
            bool
        )  # an image that no manifest holds is not known
        same_class = (manifest_a["wnid"] == manifest_b["wnid"]).to_numpy(bool)
    else:
        same_content = np.ones(scored, bool)
        same_class = (
            rows_a[0].loc[index, "label"].to_numpy() == rows_b[0].loc[index, "label"].to_numpy()
        )
    changed, relabelled = int((~same_content).sum()), int((same_content & ~same_class).sum())
    return index[same_content & same_class].sort_values(), UnmatchedCounts(
        len(names_a) - len(common),
        len(names_b) - len(common),
        changed,
        relabelled,
        len(common) - scored,
    )


def _merge_indices(frames: Sequence[pd.DataFrame]) -> pd.Index:
    index = frames[0].index
    for frame in frames[1:]:
        index = index if frame.index.equals(index) else index.union(frame.index)
    return index


def _build_outcomes(frames: Sequence[pd.DataFrame]) -> Outcomes:
    return np.column_stack([frame["correct"].to_numpy(float) for frame in frames])


def _has_same_answers(rows_a: pd.DataFrame, rows_b: pd.DataFrame) -> bool:
    return all(
        np.array_equal(rows_a[name].to_numpy(), rows_b[name].to_numpy())
        for name in ("prediction", "confidence", "correct")
    )
