"""`reports/retraining.html`: verdict, criteria, changes, and the outcomes of earlier candidates."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.artifacts import write_text
from densecl.datasets.storage.filenames import to_printable
from densecl.datasets.validation.page import make_thumbnail
from densecl.errors import RetryLater
from densecl.pages.formatting import capitalize_first, format_percent, format_points
from densecl.pages.templates import create_environment
from densecl.report.charts.mode_styles import COLOURS
from pipelines.gate.change_text import describe_consequence, describe_shift, is_changed
from pipelines.gate.chart import render_forest
from pipelines.gate.profile import FEATURES
from pipelines.gate.psi import LARGE, MODERATE
from pipelines.gate.trials import describe_trials
from pipelines.schemas import (
    Criterion,
    DatasetDrift,
    GateVerdict,
    ReferenceDrift,
    RetrainingRecord,
    SourceChanges,
)

MAX_PICTURES = 6  # thumbnails per dataset
MAX_HISTORY = 30  # retrainings in the history
FULL_BAR_PSI = 0.5  # a PSI that fills its bar
RULES = {
    "val": "low end above the bound",
    "fall": "no sure fall below the bound",
    "anchor": "against the anchor, low end above the bound",
    "anchor-fall": "against the anchor, no sure fall below the bound",
    "chance": "low end above chance",
    "minimum": "value at least",
}
# Other pages, relative to this one.
LINKS = {
    "comparison of the modes": "report.html",
    "model card of the champion": "../models/card.md",
    "validation of the images": "validation.html",
}


def write_page(
    changes: SourceChanges,
    verdict: GateVerdict,
    record: RetrainingRecord,
    history: Sequence[RetrainingRecord] = (),
    roots: Mapping[str, Path] | None = None,
    root: Path = Path(),
) -> None:
    """Write reports/retraining.html under `root`: one file that opens offline; every name is shown
    as text.

    Args:
        history: earlier retrainings, oldest first.
        roots: by dataset, the location of its images, for thumbnails.
    """
    environment = create_environment(Path(__file__).parent / "templates")
    environment.filters |= {"printable": to_printable, "percent": format_percent}
    text = environment.get_template("retraining.html").render(
        colours=COLOURS,
        headline=_format_headline(verdict),
        verdict=verdict,
        trials=describe_trials(verdict),
        record=record,
        said=capitalize_first(record.said),
        criteria=[_format_criterion(criterion, verdict.titles) for criterion in verdict.criteria],
        chart=render_forest(verdict),
        changes=changes,
        consequence=describe_consequence(changes)
        if changes.has_changes
        else "Nothing since the last judged candidate; this one was forced.",
        limits=(MODERATE, LARGE, FULL_BAR_PSI),
        features=FEATURES,
        sets=[
            _format_dataset(change, roots or {})
            for change in changes.sets
            if is_changed(change) and change.before is not None
        ],
        references=[_format_reference(drift) for drift in changes.references],
        history=[*reversed(history)][:MAX_HISTORY],
        links=[
            (name, address)
            for name, address in LINKS.items()
            if (root / paths.RETRAINING_PAGE.parent / address).exists()
        ],
    )
    write_text(root / paths.RETRAINING_PAGE, text)


def _format_headline(verdict: GateVerdict) -> str:
    name, champion = f"{verdict.mode}, seed {verdict.seed},", verdict.champion
    if verdict.promoted:
        place = f"takes the place of version {champion}" if champion else "is the first champion"
        return f"Promoted: {name} {place}."
    stays = f"version {champion} stays champion" if champion else "there is no champion yet"
    return f"Refused: {name} is not promoted; {stays}."


def _format_criterion(criterion: Criterion, titles: Mapping[str, str]) -> dict[str, str | bool]:
    """A row of the table; percent for a first champion, points for a comparison."""
    is_share = criterion.name in ("chance", "minimum")
    number = format_percent if is_share else format_points
    value = "–" if criterion.value is None else number(criterion.value)
    span = (
        "–"
        if criterion.low is None or criterion.high is None
        else f"{number(criterion.low)} to {number(criterion.high)}"
    )
    sign = ">" if criterion.name in ("val", "anchor", "chance") else "≥"
    return {
        "dataset": titles.get(criterion.dataset, criterion.dataset),
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
    """A changed dataset, with its bars and pictures."""
    ids = [f"{change.dataset}/{path}" for path in change.evidence]
    pictures = list[dict[str, str]]()
    with suppress(RetryLater):  # of shards that cannot be fetched now: the page goes without
        pictures.extend(found for image_id in ids if (found := make_thumbnail(image_id, roots)))
    shares = {
        m.wnid: (m.before / (change.before or 1), m.now / (change.images or 1)) for m in change.mix
    }
    largest = max((max(pair) for pair in shares.values()), default=1.0)
    return {
        "change": change,
        "pictures": pictures[:MAX_PICTURES],
        "shifts": [
            (f, value, _format_width(value / FULL_BAR_PSI), describe_shift(change, f))
            for f, value in change.psi.items()
        ],
        "mix": [
            (wnid, *((share, _format_width(share / largest)) for share in pair))
            for wnid, pair in shares.items()
        ],
    }


def _format_reference(drift: ReferenceDrift) -> dict[str, Any]:
    """A row of the table of drift since older data."""
    return {
        "drift": drift,
        "shifts": [
            (f"{drift.psi[f]:.2f}", describe_shift(drift, f)) if f in drift.psi else ("–", "")
            for f in FEATURES
        ],
    }


def _format_width(share: float) -> str:
    """Width of a bar, in percent."""
    return f"{100 * min(1.0, share):.1f}"
