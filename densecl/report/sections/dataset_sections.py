"""One panel a set: what it looks like, what differs, what is confused, how sure the models are, and
what was counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.analysis.results import READ_ERRORS, Comparison
from densecl.artifacts import ValidationResult, read_json
from densecl.datasets.storage.filenames import to_printable
from densecl.report.charts.scatters import draw_reliability
from densecl.report.charts.svg import Chart
from densecl.report.formatting import TableCell, TableData
from densecl.report.sections.classes import ClassNames, build_class_table, read_class_names
from densecl.report.sections.confusion import ConfusionSection, build_confusion
from densecl.report.sections.gallery import (
    Gallery,
    ThumbnailLoader,
    build_examples,
    iter_changed_galleries,
)
from densecl.report.tables import describe_dataset

MAX_FINDINGS = 5  # warnings of a set; the validation page has all


@dataclass(frozen=True)
class DatasetSection:
    name: str
    summary: str
    missing_reasons: tuple[str, ...]  # why cells are not there
    examples: Gallery | None
    changed_galleries: tuple[Gallery, ...]
    classes: TableData | None
    classes_caption: str
    confusion: ConfusionSection | None
    reliability: Chart | None
    facts: TableData


def build_dataset_sections(comparison: Comparison, root: Path) -> list[DatasetSection]:
    """Of every evaluated set, in the order of the tables."""
    names = read_class_names(root, bool(comparison.plan.rendered))
    return [
        _build_section(comparison, root, dataset, names) for dataset in comparison.plan.datasets
    ]


def _build_section(
    comparison: Comparison, root: Path, dataset: str, names: ClassNames
) -> DatasetSection:
    loader = ThumbnailLoader(comparison, root, dataset)
    table, caption = build_class_table(comparison, dataset, names) or (None, "")
    reasons = [
        f"{m}: {comparison.cells[dataset, m].note}"
        for m in comparison.plan.modes
        if comparison.cells[dataset, m].missing
    ]
    return DatasetSection(
        dataset,
        describe_dataset(comparison, dataset),
        tuple(reasons),
        build_examples(comparison, dataset, names, loader),
        tuple(iter_changed_galleries(comparison, dataset, names, loader)),
        table,
        caption,
        build_confusion(comparison, dataset, names),
        draw_reliability(comparison, dataset),
        build_facts_table(comparison, root, dataset),
    )


def build_facts_table(comparison: Comparison, root: Path, dataset: str) -> TableData:
    """Counts, what was found wrong, and how the set was scored; each line with the file that says
    so.
    """
    settings = comparison.plan.params.get("datasets", {}).get(dataset, {})
    folder = str(settings.get("root", "")) if isinstance(settings, dict) else ""
    source = (
        "drawn by code, no photographs"
        if dataset in comparison.plan.rendered
        else "images from a folder or archive"
    )
    lines = [("Images", f"{source}: {folder}" if folder else source, paths.plan_file("report"))]
    lines += _list_validation_facts(root, dataset) + _list_scoring_facts(comparison, dataset)
    rows = [
        (label, "", (TableCell(to_printable(text), "", str(file)),)) for label, text, file in lines
    ]
    return TableData((("", ("what was found",)),), tuple(rows), is_text=True)


def _list_validation_facts(root: Path, dataset: str) -> list[tuple[str, str, Path]]:
    manifest, file = paths.manifest_file(dataset), paths.validation_file(dataset)
    lines = []
    try:
        rows = pd.read_parquet(root / manifest, columns=["wnid", "problem"])
        problems = rows["problem"][rows["problem"] != ""].value_counts()
        lines.append(
            (
                "Files",
                f"{len(rows):,} in {rows['wnid'].nunique():,} "
                f"classes{_format_spread(rows['wnid'])}",
                manifest,
            )
        )
        problem_text = "; ".join(f"{problem}: {count:,}" for problem, count in problems.items())
        lines.append(("Problems of files", problem_text or "none", manifest))
    except FileNotFoundError:
        lines.append(("Files", f"not known: no file {manifest}", manifest))
    except READ_ERRORS:
        lines.append(("Files", f"not known: {manifest} cannot be read", manifest))
    if not (root / file).is_file():
        return [*lines, ("Validation", f"not known: no file {file}", file)]
    verdict = read_json(ValidationResult, root / file)
    absent = (
        f"; {len(verdict.absent)} classes of the training set have no image here"
        if verdict.absent
        else ""
    )
    state = "passed" if verdict.passed else "did not pass"
    lines.append(
        (
            "Validation",
            f"{state}: {verdict.images:,} usable images of {verdict.classes:,} classes{absent}",
            file,
        )
    )
    lines.append(("Excluded", f"{len(verdict.excluded):,} images", file))
    return lines + [
        (kind, text, file)
        for kind, texts in (("Failure", verdict.failures), ("Warning", verdict.warnings))
        for text in _clip_findings(texts)
    ]


def _format_spread(classes: pd.Series) -> str:
    counts = classes.value_counts()
    if counts.empty:
        return ""
    low, high = int(counts.min()), int(counts.max())
    return (
        f", {low:,} each"
        if low == high
        else f", {low:,} to {high:,} each, median {counts.median():,.0f}"
    )


def _clip_findings(texts: Sequence[str]) -> list[str]:
    hidden = len(texts) - MAX_FINDINGS
    return [
        *texts[:MAX_FINDINGS],
        *([f"{hidden} more: {paths.VALIDATION_PAGE}"] if hidden > 0 else []),
    ]


def _list_scoring_facts(comparison: Comparison, dataset: str) -> list[tuple[str, str, Path]]:
    """Of the first model that has the set; the others differ in their answers only."""
    for mode in comparison.plan.modes:
        for seed, record in sorted(comparison.cells[dataset, mode].records.items()):
            file, preprocessing = paths.evaluation_file(dataset, mode, seed), record.preprocessing
            rule = "the model's own" if preprocessing.rule == "model" else "only normalised"
            scored_text = (
                f"{record.images:,} images over {record.classes:,} "
                f"classes, protocol {record.protocol}"
            )
            scored_text += (
                f"; {record.outside:,} images of other classes left out" if record.outside else ""
            )
            lines = [
                (
                    "Scored",
                    scored_text + (f"; incomplete: {record.shortfall}" if record.shortfall else ""),
                    file,
                )
            ]
            if record.control:
                lines.append(
                    (
                        "Control",
                        f"{record.control.images:,} images of {record.control.dataset}, same "
                        f"classes and mask",
                        file,
                    )
                )
            size = (
                f"{preprocessing.input_size[-1]} px, {preprocessing.interpolation}, "
                f"crop {preprocessing.crop_pct:g} {preprocessing.crop_mode}"
            )
            return [*lines, ("Preprocessing", f"{rule}: {size}", file)]
    return [("Scored", "by no model", paths.EVALUATION / dataset)]
