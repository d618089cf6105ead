"""`reports/retraining.html`: the verdict first, then why, what changed, and what became of earlier
candidates.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import write_text
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.validation.page import make_thumbnail
from densecl.pages.formatting import capitalize_first, format_percent, format_points
from densecl.pages.templates import create_environment
from densecl.report.charts.svg import COLOURS
from pipelines.gate.chart import render_forest
from pipelines.gate.drift import describe_consequence, describe_shift, is_changed
from pipelines.gate.psi import LARGE, MODERATE
from pipelines.schemas import Criterion, DatasetDrift, GateVerdict, RetrainingRecord, SourceChanges

MAX_PICTURES = 6  # thumbnails a set
MAX_HISTORY = 30  # retrainings in the history
FULL_BAR_PSI = 0.5  # a PSI that fills its bar
RULES = {
    "val": "low end above the bound",
    "fall": "no sure fall below the bound",
    "chance": "low end above chance",
    "minimum": "value at least",
}


def write_page(
    changes: SourceChanges,
    verdict: GateVerdict | None,
    record: RetrainingRecord | None = None,
    *,
    history: Sequence[RetrainingRecord] = (),
    roots: Mapping[str, Path] | None = None,
    version: str | None = None,
    root: Path = Path(),
) -> Path:
    """The page's path under `root`. One file that opens offline; every name is shown as text.

    `verdict` is None where no candidate was judged; `roots` says where the sets' images lie, for
    thumbnails; `history` are the earlier retrainings, oldest first; `version` is the candidate's in
    the registry, whose lineage can be asked.
    """
    environment = create_environment(Path(__file__).parent / "templates")
    environment.filters |= {"printable": to_printable, "percent": format_percent}
    drawing, alt_text = render_forest(verdict) if verdict else ("", "")
    text = environment.get_template("retraining.html").render(
        colours=COLOURS,
        headline=_format_headline(changes, verdict, record),
        verdict=verdict,
        finished=record,
        said=capitalize_first(
            record.said if record else verdict.said if verdict else describe_consequence(changes)
        ),
        criteria=[_format_criterion(change) for change in verdict.criteria] if verdict else [],
        forest=drawing,
        spoken=alt_text,
        changes=changes,
        consequence=_describe_changes(changes, verdict),
        limits=(MODERATE, LARGE, FULL_BAR_PSI),
        sets=[
            _format_dataset(change, roots or {})
            for change in changes.sets
            if is_changed(change) and change.before is not None
        ],
        history=[*reversed(history)][:MAX_HISTORY],
        links=_list_links(root),
        version=version,
    )
    write_text(root / paths.RETRAINING_PAGE, text)
    return paths.RETRAINING_PAGE


def _format_headline(
    changes: SourceChanges, verdict: GateVerdict | None, record: RetrainingRecord | None
) -> str:
    if verdict is None:
        ended = record.outcome if record else "unchanged"
        return {"failed": "The retraining failed.", "skipped": "The retraining was skipped."}.get(
            ended,
            "Nothing was judged."
            if changes.has_changes
            else "Nothing changed, so nothing was trained.",
        )
    name = f"{verdict.mode}, seed {verdict.seed},"
    if verdict.promoted:
        return (
            f"Promoted: {name} takes the place of version {verdict.champion}."
            if verdict.champion
            else (f"Promoted: {name} is the first champion.")
        )
    stays = (
        f"version {verdict.champion} stays champion"
        if verdict.champion
        else "there is no champion yet"
    )
    return f"Refused: {name} is not promoted; {stays}."


def _describe_changes(changes: SourceChanges, verdict: GateVerdict | None) -> str:
    if verdict and not changes.has_changes:
        return "Nothing since the last judged candidate; this one was forced."
    return describe_consequence(changes)


def _format_criterion(criterion: Criterion) -> dict[str, str | bool]:
    """A row of the table, in percent for a first champion and in points beside another one."""
    is_share = criterion.name in ("chance", "minimum")
    number = format_percent if is_share else format_points
    value = "–" if criterion.value is None else number(criterion.value)
    span = (
        "–"
        if criterion.low is None or criterion.high is None
        else f"{number(criterion.low)} to {number(criterion.high)}"
    )
    sign = "≥" if criterion.name in ("minimum", "fall") else ">"
    return {
        "dataset": criterion.dataset,
        "name": criterion.name,
        "rule": RULES[criterion.name],
        "value": value,
        "span": span,
        "bound": f"{sign} {number(criterion.bound)}",
        "images": f"{criterion.images:,}",
        "passed": criterion.passed,
        "said": criterion.said,
    }


def _format_dataset(change: DatasetDrift, roots: Mapping[str, Path]) -> dict[str, Any]:
    """A set that changed, with its bars and pictures."""
    ids = [f"{change.dataset}/{path}" for path in change.evidence]
    pictures = [picture for image_id in ids if (picture := make_thumbnail(image_id, roots))]
    largest = (
        max(
            (
                max(_compute_share(m.before, change.before), _compute_share(m.now, change.images))
                for m in change.mix
            ),
            default=0,
        )
        or 1.0
    )
    return {
        "change": change,
        "pictures": pictures[:MAX_PICTURES],
        "shifts": [
            (f, value, _format_width(value / FULL_BAR_PSI), describe_shift(change, f))
            for f, value in change.psi.items()
        ],
        "mix": [
            (
                m.wnid,
                *(
                    (share, _format_width(share / largest))
                    for share in (
                        _compute_share(m.before, change.before),
                        _compute_share(m.now, change.images),
                    )
                ),
            )
            for m in change.mix
        ],
    }


def _compute_share(images: int, total: int | None) -> float:
    return images / total if total else 0.0


def _format_width(share: float) -> str:
    """Of a bar, in percent."""
    return f"{100 * min(1.0, share):.1f}"


def _list_links(root: Path) -> list[tuple[str, str]]:
    """Text and address, relative to the page, of the other pages that are there."""
    pages = {
        "comparison of the modes": paths.REPORT_PAGE,
        "model card of the champion": paths.MODEL_CARD,
        "validation of the images": paths.VALIDATION_PAGE,
    }
    page_folder = paths.RETRAINING_PAGE.parent
    return [
        (name, Path(os.path.relpath(path, page_folder)).as_posix())
        for name, path in pages.items()
        if (root / path).exists()
    ]
