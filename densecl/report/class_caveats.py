"""Caveats on results that rest on a single class, or on classes without a second image."""

from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.analysis.results import READ_ERRORS, Comparison
from densecl.artifacts import ValidationResult, read_json
from densecl.config.params import TRAIN_SET
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.manifest import select_usable
from densecl.pages.formatting import clip_list

MAX_NAMED_CLASSES = 5


def describe_few_classes(comparison: Comparison, root: Path) -> list[str]:
    """Sentences for the first screen; [] if all classes have enough images."""
    return [*_describe_training_classes(root), *_describe_evaluated_classes(comparison)]


def _describe_training_classes(root: Path) -> list[str]:
    counts = _count_training_images(root)
    if len(counts) == 1:
        return [
            f"{TRAIN_SET} has a single class, {to_printable(counts.index[0])}: there is nothing "
            "to classify, so accuracies say nothing about the modes."
        ]
    lonely = [to_printable(wnid) for wnid in counts.index[counts == 1]]
    if not lonely:
        return []
    return [
        f"{len(lonely):,} of {len(counts):,} classes of {TRAIN_SET} have no second image: "
        f"{clip_list(lonely, MAX_NAMED_CLASSES)}. What a model knows of them it learned from views "
        "of one picture."
    ]


def _count_training_images(root: Path) -> "pd.Series[int]":
    """Usable images by wnid; empty if the manifest is missing or unreadable."""
    try:
        frame = pd.read_parquet(
            root / paths.manifest_file(TRAIN_SET), columns=["image_id", "wnid", "problem"]
        )
    except READ_ERRORS:
        return pd.Series(dtype=int)
    file = root / paths.validation_file(TRAIN_SET)
    excluded = read_json(ValidationResult, file).excluded if file.is_file() else ()
    return select_usable(frame, excluded)["wnid"].value_counts().sort_index()


def _describe_evaluated_classes(comparison: Comparison) -> list[str]:
    single = [
        dataset
        for dataset in comparison.plan.datasets
        if any(
            # With a single group, a prediction may still be a class of none.
            record.classes == 1 and not (record.groups and record.top1 < 1)
            for mode in comparison.plan.modes
            for record in comparison.cells[dataset, mode].records.values()
        )
    ]
    return [
        f"{comparison.plan.titles[dataset]} is scored over a single class, so every model is "
        "right on all of its images."
        for dataset in single
    ]
