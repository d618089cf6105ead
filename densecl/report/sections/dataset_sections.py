"""One panel a set: what it looks like, what differs, what is confused, how sure the models are, and
what was counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.analysis.results import UNUSABLE, Comparison
from densecl.artifacts import Verdict, read_json
from densecl.datasets.storage.filenames import shown
from densecl.report.charts.scatters import reliability
from densecl.report.charts.svg import Chart
from densecl.report.formatting import Number, Table
from densecl.report.sections.classes import Names, by_class, class_names
from densecl.report.sections.confusion import Confusion, confusion
from densecl.report.sections.gallery import Gallery, Images, changed, examples
from densecl.report.tables import about

TOLD = 5  # warnings of a set; the validation page has all


@dataclass(frozen=True)
class SetPanel:
    name: str
    about: str
    missing: tuple[str, ...]  # why cells are not there
    examples: Gallery | None
    changed: tuple[Gallery, ...]
    classes: Table | None
    classes_caption: str
    confusion: Confusion | None
    reliability: Chart | None
    facts: Table


def panels(found: Comparison, root: Path) -> list[SetPanel]:
    """Of every evaluated set, in the order of the tables."""
    names = class_names(root, bool(found.plan.rendered))
    return [_panel(found, root, dataset, names) for dataset in found.plan.datasets]


def _panel(found: Comparison, root: Path, dataset: str, names: Names) -> SetPanel:
    images = Images(found, root, dataset)
    table, caption = by_class(found, dataset, names) or (None, "")
    reasons = [
        f"{m}: {found.cells[dataset, m].note}"
        for m in found.plan.modes
        if found.cells[dataset, m].missing
    ]
    return SetPanel(
        dataset,
        about(found, dataset),
        tuple(reasons),
        examples(found, dataset, names, images),
        tuple(changed(found, dataset, names, images)),
        table,
        caption,
        confusion(found, dataset, names),
        reliability(found, dataset),
        facts(found, root, dataset),
    )


def facts(found: Comparison, root: Path, dataset: str) -> Table:
    """Counts, what was found wrong, and how the set was scored; each line with the file that says
    so.
    """
    given = found.plan.params.get("datasets", {}).get(dataset, {})
    folder = str(given.get("root", "")) if isinstance(given, dict) else ""
    kind = (
        "drawn by code, no photographs"
        if dataset in found.plan.rendered
        else "images from a folder or archive"
    )
    lines = [("Images", f"{kind}: {folder}" if folder else kind, paths.plan("report"))]
    lines += _validated(root, dataset) + _scored(found, dataset)
    rows = [(label, "", (Number(shown(text), "", str(file)),)) for label, text, file in lines]
    return Table((("", ("what was found",)),), tuple(rows), text=True)


def _validated(root: Path, dataset: str) -> list[tuple[str, str, Path]]:
    manifest, file = paths.manifest(dataset), paths.verdict(dataset)
    lines = []
    try:
        rows = pd.read_parquet(root / manifest, columns=["wnid", "problem"])
        problems = rows["problem"][rows["problem"] != ""].value_counts()
        lines.append(
            (
                "Files",
                f"{len(rows):,} in {rows['wnid'].nunique():,} classes{_spread(rows['wnid'])}",
                manifest,
            )
        )
        found = "; ".join(f"{problem}: {count:,}" for problem, count in problems.items())
        lines.append(("Problems of files", found or "none", manifest))
    except FileNotFoundError:
        lines.append(("Files", f"not known: no file {manifest}", manifest))
    except UNUSABLE:
        lines.append(("Files", f"not known: {manifest} cannot be read", manifest))
    if not (root / file).is_file():
        return [*lines, ("Validation", f"not known: no file {file}", file)]
    verdict = read_json(Verdict, root / file)
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
        for text in _some(texts)
    ]


def _spread(classes: pd.Series) -> str:
    counts = classes.value_counts()
    if counts.empty:
        return ""
    low, high = int(counts.min()), int(counts.max())
    return (
        f", {low:,} each"
        if low == high
        else f", {low:,} to {high:,} each, median {counts.median():,.0f}"
    )


def _some(texts: Sequence[str]) -> list[str]:
    more = len(texts) - TOLD
    return [*texts[:TOLD], *([f"{more} more: {paths.VALIDATION_PAGE}"] if more > 0 else [])]


def _scored(found: Comparison, dataset: str) -> list[tuple[str, str, Path]]:
    """Of the first model that has the set; the others differ in their answers only."""
    for mode in found.plan.modes:
        for seed, record in sorted(found.cells[dataset, mode].records.items()):
            file, how = paths.evaluation(dataset, mode, seed), record.preprocessing
            rule = "the model's own" if how.rule == "model" else "only normalised"
            scored = (
                f"{record.images:,} images over {record.classes:,} "
                f"classes, protocol {record.protocol}"
            )
            scored += (
                f"; {record.outside:,} images of other classes left out" if record.outside else ""
            )
            lines = [
                (
                    "Scored",
                    scored + (f"; incomplete: {record.shortfall}" if record.shortfall else ""),
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
                f"{how.input_size[-1]} px, {how.interpolation}, "
                f"crop {how.crop_pct:g} {how.crop_mode}"
            )
            return [*lines, ("Preprocessing", f"{rule}: {size}", file)]
    return [("Scored", "by no model", paths.EVALUATION / dataset)]
