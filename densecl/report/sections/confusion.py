"""Confusions between classes: one matrix per mode if there are few classes, and the most frequent
errors.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pandas as pd

from densecl.analysis.results import Comparison
from densecl.pages.formatting import clip_text
from densecl.report.formatting import TableCell, TableData, list_modes
from densecl.report.sections.classes import (
    MAX_CLASSES,
    ClassNames,
    format_cell_files,
    get_class_name,
)

MAX_LISTED_ERRORS = 8  # mistakes, the most frequent of all modes together
CELL_PX, LABEL_PX = 16, 86  # px of a matrix


@dataclass(frozen=True)
class ConfusionMatrix:
    """Share of each predicted class (column) among the images of a class (row), as SVG in the
    mode's colour.
    """

    mode: str
    size: tuple[int, int]
    cells: tuple[tuple[int, int, float], ...]  # x, y, share
    labels: tuple[str, ...]
    alt: str


@dataclass(frozen=True)
class ConfusionSection:
    matrices: tuple[ConfusionMatrix, ...]
    top_errors: TableData
    cell_px: int = CELL_PX
    label_px: int = LABEL_PX


def build_confusion(
    comparison: Comparison, dataset: str, names: ClassNames
) -> ConfusionSection | None:
    """Confusions of every mode that has the dataset; counts are means over its seeds."""
    modes = [m for m in list_modes(comparison) if comparison.cells[dataset, m].rows]
    if not modes:
        return None
    counts_by_mode = {m: _count_predictions(comparison, dataset, m) for m in modes}
    pairs = itertools.chain.from_iterable(counts.index for counts in counts_by_mode.values())
    labels = sorted(set(map(int, itertools.chain.from_iterable(pairs))))
    drawn = modes if len(labels) <= MAX_CLASSES else []
    return ConfusionSection(
        tuple(_build_matrix(m, counts_by_mode[m], labels, names) for m in drawn),
        _build_error_table(comparison, dataset, counts_by_mode, names),
    )


def _count_predictions(comparison: Comparison, dataset: str, mode: str) -> pd.Series:
    """(label, prediction) -> images, averaged over the seeds."""
    frames = comparison.cells[dataset, mode].rows.values()
    counts = [frame.groupby(["label", "prediction"]).size() for frame in frames]
    return pd.concat(counts, axis=1).fillna(0).mean(axis=1)


def _build_matrix(
    mode: str, counts: pd.Series, labels: list[int], names: ClassNames
) -> ConfusionMatrix:
    table = counts.unstack(fill_value=0).reindex(labels, columns=labels, fill_value=0).to_numpy()
    display_names = [get_class_name(names, label).display_name for label in labels]
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    cells = tuple(
        (int(x), int(y), round(float(share[y, x]), 2)) for y, x in np.argwhere(share >= 0.005)
    )
    errors = table.copy()
    np.fill_diagonal(errors, 0)
    y, x = np.unravel_index(errors.argmax(), errors.shape)
    alt = f"{mode}: {100 * np.trace(table) / table.sum():.0f} % of the images lie on the diagonal"
    if errors.any():
        alt += f"; most often wrong: {errors[y, x]:.0f} of {table[y].sum():.0f} "
        alt += f"{display_names[y]} are taken for {display_names[x]}"
    side = LABEL_PX + CELL_PX * len(labels)
    return ConfusionMatrix(
        mode,
        (side, side),
        cells,
        tuple(clip_text(name, 12) for name in display_names),
        alt,
    )


def _build_error_table(
    comparison: Comparison, dataset: str, counts_by_mode: dict[str, pd.Series], names: ClassNames
) -> TableData:
    frame = pd.DataFrame(counts_by_mode).fillna(0).reset_index()
    class_totals = frame.groupby("label")[list(counts_by_mode)].sum()
    errors = frame[frame["label"] != frame["prediction"]]
    order = errors.assign(sum=errors[list(counts_by_mode)].sum(axis=1)).sort_values(
        ["sum", "label"], ascending=[False, True], kind="stable"
    )
    files = {m: format_cell_files(comparison, dataset, m) for m in counts_by_mode}
    rows = []
    for row in order.head(MAX_LISTED_ERRORS).to_dict("records"):
        totals = class_totals.loc[row["label"]]
        true, answered = (
            get_class_name(names, row[k]).display_name for k in ("label", "prediction")
        )
        cells = (TableCell(f"{100 * row[m] / totals[m]:.0f}", "", files[m]) for m in files)
        rows.append((f"{true} → {answered}", "", tuple(cells)))
    return TableData((("Share of the class, %", tuple(counts_by_mode)),), tuple(rows))
