"""What the classes are called, and top-1 of each class in every mode."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from densecl import paths
from densecl.analysis.results import BASELINE, UNUSABLE, Comparison
from densecl.config.params import TRAIN_SET
from densecl.datasets.imagenet import lemmas
from densecl.datasets.storage.filenames import shown
from densecl.report.formatting import Number, Table, bar, modes_of, percent, points

WHOLE = 20  # classes up to which all are shown; of more, those that change most
CHANGED = 10  # of them, in each direction


class Name(NamedTuple):
    word: str  # for people
    folder: str  # as the data has it


Names = Mapping[int, Name]


def class_names(root: Path, drawn: bool) -> dict[int, Name]:
    """By label, from the training manifest; {} where it is not there, and then labels are shown as
    numbers.
    """
    path = root / paths.manifest(TRAIN_SET)
    if not path.is_file():
        return {}
    try:
        rows = (
            pd.read_parquet(path, columns=["label", "wnid"]).drop_duplicates().sort_values("label")
        )
    except UNUSABLE:
        return {}
    known = _drawn() if drawn else lemmas()
    folders = {
        int(label): str(wnid) for label, wnid in zip(rows["label"], rows["wnid"], strict=True)
    }
    return {
        label: Name(shown(known.get(folder, folder)), shown(folder))
        for label, folder in folders.items()
    }


@cache
def _drawn() -> dict[str, str]:
    from densecl.datasets.synthetic.styles import CLASSES

    return {each.wnid: each.name for each in CLASSES}


def name_of(names: Names, label: int) -> Name:
    return names.get(int(label), Name(f"class {label}", f"class {label}"))


def by_class(found: Comparison, dataset: str, names: Names) -> tuple[Table, str] | None:
    """Top-1 by class with the difference to the baseline, and what to make of it; None where no two
    modes have the set.
    """
    modes = [m for m in modes_of(found) if found.cells[dataset, m].rows]
    pairs = [
        (a, b)
        for a, b in found.pairs
        if a in modes and b in modes and (b == BASELINE or BASELINE not in modes)
    ]
    if not pairs:
        return None
    right = {m: _of_classes(found, dataset, m) for m in modes}
    counts = (
        found.cells[dataset, modes[0]]
        .rows[min(found.cells[dataset, modes[0]].rows)]["label"]
        .value_counts()
    )
    frame = pd.DataFrame(right).assign(images=counts).dropna()
    first, second = pairs[0]
    gap = (frame[first] - frame[second]).sort_values(kind="stable", ascending=False)
    kept = gap.index if len(gap) <= WHOLE else gap.index[np.r_[:CHANGED, -CHANGED:0]]
    widest = max(0.01, *(float((frame[a] - frame[b]).abs().max()) for a, b in pairs))
    rows = []
    for label in kept:
        row, name = frame.loc[label], name_of(names, label)
        gaps = [_gap(float(row[a] - row[b]), widest, (a, b), found, dataset) for a, b in pairs]
        entries = [
            Number(f"{int(row['images']):,}"),
            *(_share(float(row[m]), found, dataset, m) for m in modes),
            *gaps,
        ]
        about = name.folder if name.folder != name.word else ""
        rows.append((name.word, about, tuple(entries)))
    groups = (
        ("", ("images",)),
        ("Top-1, %", tuple(modes)),
        ("Difference, points", tuple(f"{a} − {b}" for a, b in pairs)),
    )
    return Table(groups, tuple(rows)), _read_with_care(
        found, dataset, first, second, frame, len(kept)
    )


def _of_classes(found: Comparison, dataset: str, mode: str) -> pd.Series:
    """Top-1 by label, the mean over the seeds."""
    frames = found.cells[dataset, mode].rows.values()
    return pd.concat([frame.groupby("label")["correct"].mean() for frame in frames], axis=1).mean(
        axis=1
    )


def files_of_cell(found: Comparison, dataset: str, *modes: str) -> str:
    """Prediction files of all seeds that the cells have."""
    return ", ".join(
        str(paths.predictions(dataset, m, s))
        for m in modes
        for s in sorted(found.cells[dataset, m].rows)
    )


def _share(value: float, found: Comparison, dataset: str, mode: str) -> Number:
    return Number(percent(value), "", files_of_cell(found, dataset, mode))


def _gap(
    value: float, widest: float, pair: tuple[str, str], found: Comparison, dataset: str
) -> Number:
    return Number(
        points(value), "", files_of_cell(found, dataset, *pair), bar=bar(value / widest, *pair)
    )


def _read_with_care(
    found: Comparison, dataset: str, first: str, second: str, frame: pd.DataFrame, kept: int
) -> str:
    one, two = (next(iter(found.cells[dataset, m].rows.values())) for m in (first, second))
    both = pd.merge(one, two, left_index=True, right_index=True, suffixes=("", "_two"))
    apart, typical = (
        float((both["correct"] != both["correct_two"]).mean()),
        float(frame["images"].median()),
    )
    noise = 1.96 * np.sqrt(apart / typical)
    which = (
        f"The {kept} of {len(frame)} classes that change most, as many up as down. "
        if kept < len(frame)
        else ""
    )
    return (
        f"{which}Look for classes that move together in several modes. No class is tested: with "
        f"{typical:.0f} images, "
        f"chance alone moves one by some {percent(noise)} points, and the largest of {len(frame)} "
        f"by more."
    )
