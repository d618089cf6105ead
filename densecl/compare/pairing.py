"""Pair the images that A and B share: same name, same content, same class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd

from densecl.analysis.results import build_outcome_matrix, get_sources
from densecl.analysis.statistics import Outcomes, Sources
from densecl.compare.read import EvaluationRecord, Experiment

# Why images of a cell are not compared, in the order of the columns of compare.csv.
UNMATCHED_KINDS = {
    "only_a": "in A only",
    "only_b": "in B only",
    "changed": "whose content differs",
    "relabelled": "of another class",
    "partly": "not scored for every seed",
}
UnmatchedCounts = Mapping[str, int]


class UnpairedCellError(ValueError):
    """A cell that cannot be compared; the message gives the reason."""


@dataclass(frozen=True)
class PairedCell:
    """a, b [n, S]: 1.0 where correct; one row per image, one column per seed."""

    seeds: tuple[int, ...]
    a: Outcomes
    b: Outcomes
    sources: Sources  # [n]: the photograph that each image was made from
    unmatched: UnmatchedCounts
    identical: bool  # every prediction with its confidence
    class_mismatch: str  # why the two answered different questions; "": they did not
    by_content: bool  # contents were compared, not names alone
    chance: float  # accuracy of guessing, where both answered the same question


def describe_unmatched(counts: UnmatchedCounts) -> str:
    return ", ".join(f"{n:,} {UNMATCHED_KINDS[kind]}" for kind, n in counts.items() if n)


def build_paired_cell(a: Experiment, b: Experiment, dataset: str, mode: str) -> PairedCell:
    """Pair the cells of common seeds; UnpairedCellError without a common seed or image."""
    seeds = sorted({*a.list_seeds(dataset, mode)} & {*b.list_seeds(dataset, mode)})
    if not seeds:
        raise UnpairedCellError(_describe_no_seed(a, b, dataset, mode))
    rows_a, rows_b = ({seed: x.cells[dataset, mode, seed].rows for seed in seeds} for x in (a, b))
    manifest_a, manifest_b = (x.manifests.get(dataset) for x in (a, b))
    same_bytes = bool(manifest_a and manifest_b and manifest_a.digest == manifest_b.digest)
    contents_a, contents_b = (
        None if same_bytes or not manifest else manifest.rows
        for manifest in (manifest_a, manifest_b)
    )
    index, unmatched = _match_images([*rows_a.values()], [*rows_b.values()], contents_a, contents_b)
    if not len(index):
        raise UnpairedCellError(f"no image in common: {describe_unmatched(unmatched)}")
    rows_a, rows_b = (
        {seed: rows.loc[index] for seed, rows in side.items()} for side in (rows_a, rows_b)
    )
    records = [x.cells[dataset, mode, seeds[0]].record for x in (a, b)]
    first = records[0]
    answers = ["prediction", "confidence", "correct"]
    return PairedCell(
        tuple(seeds),
        build_outcome_matrix(rows_a, "correct", seeds),
        build_outcome_matrix(rows_b, "correct", seeds),
        get_sources(rows_a),
        unmatched,
        identical=all(np.array_equal(rows_a[s][answers], rows_b[s][answers]) for s in seeds),
        class_mismatch=describe_class_mismatch(*records),
        by_content=same_bytes or (contents_a is not None and contents_b is not None),
        chance=1 / first.classes if first.chance is None else first.chance,
    )


def describe_class_mismatch(a: EvaluationRecord, b: EvaluationRecord) -> str:
    """Text on a difference between the candidate classes of A and B; "" if they are equal.

    Where a set is scored over the classes that have images, these are `per_class`; where a list is
    given or published, one side may lack images of some of them.
    """
    if a.classes != b.classes:
        return f"A chose among {a.classes} classes and B among {b.classes}"
    common = a.per_class.keys() & b.per_class.keys()
    if len(common) == min(len(a.per_class), len(b.per_class)):
        return ""
    return f"A and B chose among different classes ({len(common)} of {a.classes} in common)"


def _describe_no_seed(a: Experiment, b: Experiment, dataset: str, mode: str) -> str:
    reasons = [
        f"{letter}: {'; '.join(texts)}"
        for letter, experiment in (("A", a), ("B", b))
        if (
            texts := [
                f"seed {s}: {text}"
                for (d, m, s), text in experiment.missing.items()
                if (d, m) == (dataset, mode)
            ]
        )
    ]
    return (
        "; ".join(reasons)
        or f"no seed in common (A: {a.list_seeds(dataset, mode)}, B: {b.list_seeds(dataset, mode)})"
    )


def _match_images(
    rows_a: Sequence[pd.DataFrame],
    rows_b: Sequence[pd.DataFrame],
    contents_a: pd.DataFrame | None,
    contents_b: pd.DataFrame | None,
) -> tuple[pd.Index, UnmatchedCounts]:
    """Sorted names of the images to compare, and counts of the others by reason; without manifests,
    match by name and label.
    """
    names_a, names_b = (
        reduce(pd.Index.union, (frame.index for frame in side)) for side in (rows_a, rows_b)
    )
    common = names_a.intersection(names_b)
    index = reduce(pd.Index.intersection, (frame.index for frame in (*rows_a, *rows_b)), common)
    if contents_a is not None and contents_b is not None:
        same = contents_a.reindex(index) == contents_b.reindex(index)
        # An image that no manifest holds is not known.
        same_content, same_class = same["sha256"].to_numpy(bool), same["wnid"].to_numpy(bool)
    else:
        label_a, label_b = (side[0].loc[index, "label"].to_numpy() for side in (rows_a, rows_b))
        same_content, same_class = np.ones(len(index), bool), label_a == label_b
    counts = (
        len(names_a) - len(common),
        len(names_b) - len(common),
        int((~same_content).sum()),
        int((same_content & ~same_class).sum()),
        len(common) - len(index),
    )
    unmatched = dict(zip(UNMATCHED_KINDS, counts, strict=True))
    return index[same_content & same_class].sort_values(), unmatched
