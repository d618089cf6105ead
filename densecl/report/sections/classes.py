"""Names of classes, and top-1 per class and mode."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from densecl import paths
from densecl.analysis.results import BASELINE, READ_ERRORS, Comparison
from densecl.config.params import TRAIN_SET
from densecl.datasets.imagenet import load_class_descriptions
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.synthetic.classes import SYNTHETIC_CLASSES
from densecl.pages.formatting import format_percent, format_points
from densecl.report.formatting import TableCell, TableData, build_bar, list_modes

MAX_CLASSES = 20  # classes up to which all are shown; of more, those that change most
CHANGED_CLASSES = 10  # of them, in each direction


class ClassName(NamedTuple):
    display_name: str  # for people
    folder: str  # as the data has it


NO_GROUP = ClassName("no group", "no group")  # the model's prediction is a class of none
ClassNames = Mapping[int, ClassName]


def read_class_names(root: Path, synthetic: bool) -> dict[int, ClassName]:
    """Class names by label from the training manifest; {} without it, and labels are then shown as
    numbers.
    """
    path = root / paths.manifest_file(TRAIN_SET)
    try:
        rows = pd.read_parquet(path, columns=["label", "wnid"]).drop_duplicates()
    except READ_ERRORS:
        return {}
    readable_names = (
        {c.wnid: c.name for c in SYNTHETIC_CLASSES} if synthetic else load_class_descriptions()
    )
    return {
        int(label): ClassName(to_printable(readable_names.get(wnid, wnid)), to_printable(wnid))
        for label, wnid in rows.sort_values("label").itertuples(index=False)
    }


def read_group_names(comparison: Comparison, dataset: str) -> dict[int, ClassName]:
    """Names of a dataset's labels that are groups of classes; {} if its labels are classes."""
    groups = {
        label: ClassName(to_printable(name), to_printable(name))
        for mode in comparison.plan.modes
        for record in comparison.cells[dataset, mode].records.values()
        for name, label in record.groups.items()
    }
    return {**groups, -1: NO_GROUP} if groups else {}


def get_class_name(names: ClassNames, label: int) -> ClassName:
    return names.get(int(label), ClassName(f"class {label}", f"class {label}"))


def build_class_table(
    comparison: Comparison, dataset: str, names: ClassNames
) -> tuple[TableData, str] | None:
    """Top-1 per class with the difference from the baseline and an interpretation; None unless two
    modes have the dataset.
    """
    modes = [m for m in list_modes(comparison) if comparison.cells[dataset, m].rows]
    pairs = [
        (a, b)
        for a, b in comparison.mode_pairs
        if a in modes and b in modes and (b == BASELINE or BASELINE not in modes)
    ]
    if not pairs:
        return None
    accuracies = {m: _compute_class_accuracy(comparison, dataset, m) for m in modes}
    first_rows = comparison.cells[dataset, modes[0]].rows
    counts = first_rows[min(first_rows)]["label"].value_counts()
    frame = pd.DataFrame(accuracies).assign(images=counts).dropna()
    first, second = pairs[0]
    gap = (frame[first] - frame[second]).sort_values(kind="stable", ascending=False)
    labels = (
        gap.index
        if len(gap) <= MAX_CLASSES
        else gap.index[np.r_[:CHANGED_CLASSES, -CHANGED_CLASSES:0]]
    )
    files = {
        key: format_cell_files(comparison, dataset, *key)
        for key in (*((m,) for m in modes), *pairs)
    }
    widest = max(0.01, *(float((frame[a] - frame[b]).abs().max()) for a, b in pairs))
    rows = []
    for label in labels:
        row, name = frame.loc[label], get_class_name(names, label)
        entries = [
            TableCell(f"{int(row['images']):,}"),
            *(TableCell(format_percent(row[m]), "", files[m,]) for m in modes),
            *(
                TableCell(
                    format_points(row[a] - row[b]),
                    "",
                    files[a, b],
                    bar=build_bar(float(row[a] - row[b]) / widest, a, b),
                )
                for a, b in pairs
            ),
        ]
        folder = name.folder if name.folder != name.display_name else ""
        rows.append((name.display_name, folder, tuple(entries)))
    groups = (
        ("", ("images",)),
        ("Top-1, %", tuple(modes)),
        ("Difference, points", tuple(f"{a} − {b}" for a, b in pairs)),
    )
    return TableData(groups, tuple(rows)), _format_class_caption(
        comparison, dataset, first, second, frame, len(labels)
    )


def _compute_class_accuracy(comparison: Comparison, dataset: str, mode: str) -> pd.Series:
    """Top-1 by label, averaged over the seeds."""
    frames = comparison.cells[dataset, mode].rows.values()
    return pd.concat([frame.groupby("label")["correct"].mean() for frame in frames], axis=1).mean(
        axis=1
    )


def format_cell_files(comparison: Comparison, dataset: str, *modes: str) -> str:
    """Prediction files of all seeds of the cells."""
    return ", ".join(
        str(paths.predictions_file(dataset, m, s))
        for m in modes
        for s in sorted(comparison.cells[dataset, m].rows)
    )


def _format_class_caption(
    comparison: Comparison,
    dataset: str,
    mode: str,
    baseline: str,
    frame: pd.DataFrame,
    class_count: int,
) -> str:
    mode_rows, baseline_rows = (
        next(iter(comparison.cells[dataset, name].rows.values())) for name in (mode, baseline)
    )
    merged = pd.merge(
        mode_rows, baseline_rows, left_index=True, right_index=True, suffixes=("", "_two")
    )
    discordant = float((merged["correct"] != merged["correct_two"]).mean())
    typical_images = float(frame["images"].median())
    noise = 1.96 * np.sqrt(discordant / typical_images)
    selection = (
        f"The {class_count} of {len(frame)} classes that change most, as many up as down. "
        if class_count < len(frame)
        else ""
    )
    look = f"{selection}Look for classes that move together in several modes. No class is tested"
    if not discordant:
        return f"{look}: {mode} and {baseline} are right on the same images."
    return (
        f"{look}: with {typical_images:.0f} images, chance alone moves one by some "
        f"{format_percent(noise)} points, and the largest of {len(frame)} by more."
    )
