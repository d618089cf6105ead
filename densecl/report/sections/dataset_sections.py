"""One section per dataset: examples, differences, confusions, calibration and counts."""

from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.analysis.results import READ_ERRORS, Comparison
from densecl.artifacts import Evaluation, SkippedFiles, ValidationResult, read_json
from densecl.config.params import TRAIN_SET, DataParams
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.storage.skipped_files import describe_skipped
from densecl.report.charts.scatters import draw_reliability
from densecl.report.formatting import TableCell, TableData
from densecl.report.sections.classes import (
    ClassNames,
    build_class_table,
    read_class_names,
    read_group_names,
)
from densecl.report.sections.confusion import build_confusion
from densecl.report.sections.gallery import (
    ThumbnailLoader,
    build_examples,
    iter_changed_galleries,
)
from densecl.report.tables import describe_dataset

Fact = tuple[str, str]  # name and value
MAX_FINDINGS = 5  # warnings per dataset; the validation page has all


def build_dataset_sections(comparison: Comparison, root: Path) -> list[dict[str, Any]]:
    """Sections of all evaluated datasets, in the order of the tables."""
    names = read_class_names(root, TRAIN_SET in comparison.plan.rendered)
    return [
        _build_section(comparison, root, s, read_group_names(comparison, s) or names)
        for s in comparison.plan.datasets
    ]


def _build_section(
    comparison: Comparison, root: Path, dataset: str, names: ClassNames
) -> dict[str, Any]:
    loader = ThumbnailLoader(comparison, root, dataset)
    table, caption = build_class_table(comparison, dataset, names) or (None, "")
    cells = {m: comparison.cells[dataset, m] for m in comparison.plan.modes}
    return {
        "name": comparison.plan.titles[dataset],
        "summary": describe_dataset(comparison, dataset),
        "missing_reasons": [f"{m}: {cell.note}" for m, cell in cells.items() if cell.missing],
        "examples": build_examples(comparison, dataset, names, loader),
        "changed_galleries": list(iter_changed_galleries(comparison, dataset, names, loader)),
        "classes": table,
        "classes_caption": caption,
        "confusion": build_confusion(comparison, dataset, names),
        "reliability": draw_reliability(comparison, dataset),
        "facts": build_facts_table(comparison, root, dataset),
    }


def build_facts_table(comparison: Comparison, root: Path, dataset: str) -> TableData:
    """Counts, validation findings and scoring rules, each with its source file; the training set is
    not scored.
    """
    settings = comparison.plan.params.get("datasets", {}).get(dataset)
    folder = settings.get("root") if isinstance(settings, dict) else None
    is_rendered = dataset in comparison.plan.rendered
    source = "drawn by code, no photographs" if is_rendered else "images from a folder or archive"
    facts = {
        paths.plan_file("report"): [
            ("Images", f"{source}: {folder}" if folder else source),
            *(_list_order(comparison) if dataset == TRAIN_SET else ()),
        ],
        paths.manifest_file(dataset): _list_files(root, dataset),
        paths.skipped_file(dataset): _list_skipped(root, dataset),
        paths.validation_file(dataset): _list_findings(root, dataset),
        **(_list_scoring_facts(comparison, dataset) if dataset in comparison.plan.datasets else {}),
    }
    rows = tuple(
        (label, "", (TableCell(to_printable(text), "", str(file)),))
        for file, lines in facts.items()
        for label, text in lines
    )
    return TableData((("", ("what was found",)),), rows, is_text=True)


def _list_order(comparison: Comparison) -> list[Fact]:
    """How the images of an epoch follow each other, where that is not the usual order."""
    data = comparison.plan.params.get("data", {})
    if not isinstance(data, dict) or data.get("order", "images") == "images":
        return []
    shards = data.get("block_shards", DataParams().block_shards)
    order = (
        f"blocks of {shards} shards drawn anew each epoch, and the images of a block drawn in it, "
        "instead of all images (data.order: shards): a batch holds images of one block"
    )
    return [("Order of the images", order)]


def _list_files(root: Path, dataset: str) -> list[Fact]:
    file = paths.manifest_file(dataset)
    try:
        rows = pd.read_parquet(root / file, columns=["wnid", "problem"])
    except FileNotFoundError:
        return [("Files", f"not known: no file {file}")]
    except READ_ERRORS:
        return [("Files", f"not known: {file} cannot be read")]
    counts = rows["wnid"].value_counts()
    spread = f", {counts.min():,} to {counts.max():,} each, median {counts.median():,.0f}"
    if counts.nunique() < 2:
        spread = f", {counts.iloc[0]:,} each" if len(counts) else ""
    problems = rows["problem"][rows["problem"] != ""].value_counts()
    return [
        ("Files", f"{len(rows):,} in {len(counts):,} classes{spread}"),
        ("Problems of files", "; ".join(f"{k}: {n:,}" for k, n in problems.items()) or "none"),
    ]


def _list_skipped(root: Path, dataset: str) -> list[Fact]:
    file = paths.skipped_file(dataset)
    if not (root / file).is_file():
        return [("Skipped files", f"not known: no file {file}")]
    counts = read_json(SkippedFiles, root / file)
    return [
        ("Skipped files", describe_skipped(counts.skipped)),
        *(("Listing", note) for note in counts.notes),
    ]


def _list_findings(root: Path, dataset: str) -> list[Fact]:
    file = paths.validation_file(dataset)
    if not (root / file).is_file():
        return [("Validation", f"not known: no file {file}")]
    verdict = read_json(ValidationResult, root / file)
    state = "passed" if verdict.passed else "did not pass"
    absent = f"; {len(verdict.absent)} classes of the training set have no image here"
    facts = [
        (
            "Validation",
            f"{state}: {verdict.images:,} usable images of {verdict.classes:,} classes"
            + (absent if verdict.absent else ""),
        ),
        (
            "Excluded",
            f"{len(verdict.excluded):,} images"
            + (f", {verdict.leaked:,} of them also in the train set" if verdict.leaked else ""),
        ),
    ]
    for kind, texts in (("Failure", verdict.failures), ("Warning", verdict.warnings)):
        facts += [(kind, text) for text in texts[:MAX_FINDINGS]]
        if len(texts) > MAX_FINDINGS:
            facts.append((kind, f"{len(texts) - MAX_FINDINGS} more: {paths.VALIDATION_PAGE}"))
    return facts


def _list_scoring_facts(comparison: Comparison, dataset: str) -> dict[Path, list[Fact]]:
    """Scoring facts from the first model that has the dataset; they are the same for all models."""
    records = [
        (paths.evaluation_file(dataset, mode, seed), record)
        for mode in comparison.plan.modes
        for seed, record in sorted(comparison.cells[dataset, mode].records.items())
    ]
    if not records:
        return {paths.EVALUATION: [("Scored", "by no model")]}
    file, record = records[0]
    control = record.control
    scored = (
        f"{record.images:,} images over {record.classes:,} classes, protocol {record.protocol}",
        f"{record.outside:,} images of other classes left out" if record.outside else "",
        f"incomplete: {record.shortfall}" if record.shortfall else "",
    )
    facts = [("Scored", "; ".join(filter(None, scored)))]
    if control:
        control_text = f"{control.images:,} images of {control.dataset}, same classes and mask"
        facts.append(("Control", control_text))
    return {file: [*facts, ("Preprocessing", _describe_preprocessing(record))]}


def _describe_preprocessing(record: Evaluation) -> str:
    settings = record.preprocessing
    if settings.rule == "as-is":
        height, width = settings.input_size[1:]
        return f"as they are, {width} x {height} px: not resized, only normalised"
    size = (
        f"the model's own: {settings.input_size[-1]} px, {settings.interpolation}, "
        f"crop {settings.crop_pct:g} {settings.crop_mode}"
    )
    if settings.border:
        size += f", after {settings.border} px are cut off each side"
    return f"{size}; {record.resizing}" if record.resizing else size
