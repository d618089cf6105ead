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
from densecl.compare.schemas import Scored


class Unpaired(ValueError):
    """Nothing of a cell can be compared; the message says why."""


@dataclass(frozen=True)
class LeftOut:
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


NONE_LEFT_OUT = LeftOut()


@dataclass(frozen=True)
class Pair:
    """a, b [n, S]: 1.0 where right; a row is an image, a column a seed."""

    seeds: tuple[int, ...]
    a: Outcomes
    b: Outcomes
    left_out: LeftOut
    identical: bool  # every prediction with its confidence
    unlike: str  # why the two answered different questions; "": they did not
    by_content: bool  # contents were compared, not names alone


def pair(a: Experiment, b: Experiment, dataset: str, mode: str) -> Pair:
    """The cells of the seeds that both have; Unpaired where no seed or no image is common."""
    seeds = sorted({*a.seeds(dataset, mode)} & {*b.seeds(dataset, mode)})
    if not seeds:
        raise Unpaired(_no_seed(a, b, dataset, mode))
    one, two = ([x.cells[dataset, mode, seed].rows for seed in seeds] for x in (a, b))
    same = a.contents.digest(dataset) == b.contents.digest(dataset) != ""
    manifests = None if same else _manifests(a, b, dataset)
    index, left_out = _common(one, two, manifests)
    if not len(index):
        raise Unpaired(f"no image in common: {left_out}")
    one, two = ([frame.loc[index] for frame in side] for side in (one, two))
    records = [x.cells[dataset, mode, seeds[0]].record for x in (a, b)]
    return Pair(
        tuple(seeds),
        _outcomes(one),
        _outcomes(two),
        left_out,
        identical=all(_same_answers(f, s) for f, s in zip(one, two, strict=True)),
        unlike=unlike(*records),
        by_content=same or manifests is not None,
    )


def unlike(a: Scored, b: Scored) -> str:
    """Why A and B chose among different candidates; "": they chose among the same classes.

    Where a set is scored over the classes that have images, these are `per_class`; where a list is
    given or published, one side may lack images of some of them.
    """
    if a.classes != b.classes:
        return f"A chose among {a.classes} classes and B among {b.classes}"
    first, second = a.per_class.keys(), b.per_class.keys()
    if not (first <= second or second <= first):
        return (
            f"A and B chose among different classes "
            f"({len(first & second)} of {a.classes} in common)"
        )
    return ""


def _no_seed(a: Experiment, b: Experiment, dataset: str, mode: str) -> str:
    said = [f"{name}: {why}" for name, x in (("A", a), ("B", b)) if (why := x.why(dataset, mode))]
    return (
        "; ".join(said)
        or f"no seed in common (A: {a.seeds(dataset, mode)}, B: {b.seeds(dataset, mode)})"
    )


def _manifests(
    a: Experiment, b: Experiment, dataset: str
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    first, second = a.contents.manifest(dataset), b.contents.manifest(dataset)
    return None if first is None or second is None else (first, second)


def _common(
    one: Sequence[pd.DataFrame],
    two: Sequence[pd.DataFrame],
    manifests: tuple[pd.DataFrame, pd.DataFrame] | None,
) -> tuple[pd.Index, LeftOut]:
    """Names of the images to compare, sorted, and how many are left out for what; without manifests
    by name and label.
    """
    every_a, every_b = (_union(side) for side in (one, two))
    both = every_a.intersection(every_b)
    index = both
    for frame in (*one, *two):
        index = index.intersection(frame.index)
    scored = len(index)
    if manifests:
        before, after = (frame.reindex(index) for frame in manifests)
        same = (before["sha256"] == after["sha256"]).to_numpy(
            bool
        )  # an image that no manifest holds is not known
        alike = (before["wnid"] == after["wnid"]).to_numpy(bool)
    else:
        same = np.ones(scored, bool)
        alike = one[0].loc[index, "label"].to_numpy() == two[0].loc[index, "label"].to_numpy()
    changed, relabelled = int((~same).sum()), int((same & ~alike).sum())
    return index[same & alike].sort_values(), LeftOut(
        len(every_a) - len(both), len(every_b) - len(both), changed, relabelled, len(both) - scored
    )


def _union(side: Sequence[pd.DataFrame]) -> pd.Index:
    index = side[0].index
    for frame in side[1:]:
        index = index if frame.index.equals(index) else index.union(frame.index)
    return index


def _outcomes(frames: Sequence[pd.DataFrame]) -> Outcomes:
    return np.column_stack([frame["correct"].to_numpy(float) for frame in frames])


def _same_answers(one: pd.DataFrame, two: pd.DataFrame) -> bool:
    return all(
        np.array_equal(one[name].to_numpy(), two[name].to_numpy())
        for name in ("prediction", "confidence", "correct")
    )
