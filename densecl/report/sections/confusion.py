"""What is taken for what: a matrix a mode where classes are few, and the most frequent mistakes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from densecl.analysis.results import Comparison
from densecl.report.formatting import Number, Table, modes_of
from densecl.report.sections.classes import WHOLE, Names, files_of_cell, name_of

LISTED = 8  # mistakes, the most frequent of all modes together
CELL, LABEL = 16, 86  # px of a matrix


@dataclass(frozen=True)
class Matrix:
    """Shares of the images of a class (row) that are given each class (column), as an SVG in the
    mode's colour.
    """

    mode: str
    size: tuple[int, int]
    cells: tuple[tuple[int, int, float], ...]  # x, y, share
    labels: tuple[str, ...]
    alt: str


@dataclass(frozen=True)
class Confusion:
    matrices: tuple[Matrix, ...]
    mistakes: Table
    cell: int = CELL
    label: int = LABEL


def confusion(found: Comparison, dataset: str, names: Names) -> Confusion | None:
    """Of every mode that has the set, counts being the mean over its seeds."""
    modes = [m for m in modes_of(found) if found.cells[dataset, m].rows]
    if not modes:
        return None
    counted = {m: _counts(found, dataset, m) for m in modes}
    labels = sorted(
        {int(label) for counts in counted.values() for pair in counts.index for label in pair}
    )
    small = len(labels) <= WHOLE
    matrices = tuple(_matrix(m, counted[m], labels, names) for m in modes) if small else ()
    return Confusion(matrices, _mistakes(found, dataset, counted, names))


def _counts(found: Comparison, dataset: str, mode: str) -> pd.Series:
    """(label, prediction) -> images, the mean over the seeds."""
    frames = found.cells[dataset, mode].rows.values()
    each = [frame.groupby(["label", "prediction"]).size() for frame in frames]
    return pd.concat(each, axis=1).fillna(0).mean(axis=1)


def _matrix(mode: str, counts: pd.Series, labels: list[int], names: Names) -> Matrix:
    at = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(labels), len(labels)))
    pairs = counts.index.to_frame(index=False)
    table[pairs["label"].map(at), pairs["prediction"].map(at)] = counts.to_numpy()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    cells = tuple(
        (int(x), int(y), round(float(share[y, x]), 2)) for y, x in np.argwhere(share >= 0.005)
    )
    wrong = table.copy()
    np.fill_diagonal(wrong, 0)
    y, x = np.unravel_index(wrong.argmax(), wrong.shape)
    worst = (
        f"; most often wrong: {wrong[y, x]:.0f} of {table[y].sum():.0f} "
        f"{name_of(names, labels[y]).word} are taken for "
    )
    alt = f"{mode}: {100 * np.trace(table) / table.sum():.0f} % of the images lie on the diagonal"
    alt += f"{worst}{name_of(names, labels[x]).word}" if wrong.any() else ""
    side = LABEL + CELL * len(labels)
    return Matrix(
        mode,
        (side, side),
        cells,
        tuple(_short(name_of(names, label).word) for label in labels),
        alt,
    )


def _mistakes(
    found: Comparison, dataset: str, counted: dict[str, pd.Series], names: Names
) -> Table:
    frame = pd.DataFrame(counted).fillna(0).reset_index()
    of_class = frame.groupby("label")[list(counted)].sum()
    wrong = frame[frame["label"] != frame["prediction"]]
    order = wrong.assign(sum=wrong[list(counted)].sum(axis=1)).sort_values(
        ["sum", "label"], ascending=[False, True], kind="stable"
    )
    rows = []
    for row in order.head(LISTED).to_dict("records"):
        label = row["label"]
        entries = tuple(
            Number(
                f"{100 * row[m] / of_class.loc[label, m]:.0f}", "", files_of_cell(found, dataset, m)
            )
            for m in counted
        )
        rows.append(
            (
                f"{name_of(names, label).word} → {name_of(names, row['prediction']).word}",
                "",
                entries,
            )
        )
    return Table((("Share of the class, %", tuple(counted)),), tuple(rows))


def _short(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"
