"""Changes and drift in words, for a terminal and the page."""

from collections.abc import Iterator

from densecl.config.params import TRAIN_SET
from densecl.datasets.storage.filenames import to_printable
from densecl.pages.formatting import format_count
from pipelines.gate.psi import LARGE, MODERATE
from pipelines.schemas import DatasetDrift, DistributionShift, ReferenceDrift, SourceChanges

MAX_SHOWN = 12  # classes per dataset
EVALUATION_PREFIXES = (
    "evaluate.",
    "evaluation code",
)  # heads of the lines about params and code that train nothing anew


def format_changes(changes: SourceChanges, trains: bool | None = None) -> str:
    """Changes as text for a terminal: one line per dataset, then params and code, then the drift
    since older data, then the consequence. `trains`: of a forced run, whether its training stage
    has to run; None: not forced.
    """
    return "\n".join(
        [
            *(line for change in changes.sets for line in _format_dataset_change(change)),
            *changes.params,
            *(line for drift in changes.references for line in _format_reference_drift(drift)),
            "",
            describe_consequence(changes, trains),
        ]
    )


def describe_consequence(changes: SourceChanges, trains: bool | None = None) -> str:
    """One sentence on what the changes mean for the next candidate."""
    if not changes.has_changes:
        consequence = {
            None: "none is trained or judged (--force judges the same one again)",
            False: "nothing is trained, and the same candidate is judged again (--force), unless "
            "it is the champion, byte for byte",
            True: "its model is gone or out of date, so a candidate is trained, or restored from "
            "DVC's cache, and judged (--force)",
        }[trains]
        return f"Nothing changed since the last judged candidate: {consequence}."
    if all(change.before is None for change in changes.sets):
        return (
            "There is no earlier candidate to compare with: "
            "everything is new, and a candidate is judged."
        )
    train = next(change for change in changes.sets if change.dataset == TRAIN_SET)
    if is_changed(train) or any(
        not line.startswith(EVALUATION_PREFIXES) for line in changes.params
    ):
        return (
            "A new candidate is trained, or restored from DVC's cache if these data and params "
            "were trained before, and judged."
        )
    return (
        "Only the evaluation changed: the same model is the "
        "candidate, and it and the champion are judged anew, unless it is the champion, byte for "
        "byte: then only its chance and minimums are checked on the new images."
    )


def is_changed(change: DatasetDrift) -> bool:
    return change.before is None or bool(change.new or change.removed or change.changed)


def describe_shift(change: DistributionShift, feature: str) -> str:
    """`large`, `moderate` or "", by the conventional thresholds, and only if above the level
    expected by chance.
    """
    value = change.psi.get(feature, 0.0)
    if value <= change.chance.get(feature, 0.0):
        return ""
    return "large" if value >= LARGE else "moderate" if value >= MODERATE else ""


def _format_dataset_change(change: DatasetDrift) -> Iterator[str]:
    images = format_count(change.images, "image")
    if not is_changed(change):
        yield f"{change.shown}: unchanged, {images}"
        return
    if change.before is None:
        yield f"{change.shown}: {images}, nothing to compare with"
        return
    yield (
        f"{change.shown}: {images}, {change.before:,} before: {change.new:,} new, "
        f"{change.removed:,} removed, "
        f"{change.changed:,} changed"
    )
    yield from _format_shift(change)
    if change.relabelled:
        verb = "image changed" if change.relabelled == 1 else "images changed"
        yield f"  {change.relabelled:,} {verb} class: the same content in another folder"
    if change.evidence:
        yield "  such as " + ", ".join(to_printable(path) for path in change.evidence[:3])


def _format_reference_drift(drift: ReferenceDrift) -> Iterator[str]:
    head = f"{drift.shown} against the {drift.reference} (version {drift.version})"
    if drift.before is None:
        yield f"{head}: nothing to compare with"
        return
    yield f"{head}: {format_count(drift.images, 'image')}, {drift.before:,} then"
    yield from _format_shift(drift)


def _format_shift(change: DistributionShift) -> Iterator[str]:
    for what, wnids in (("new", change.classes_new), ("removed", change.classes_removed)):
        if wnids:
            more = f" and {len(wnids) - MAX_SHOWN} more" if len(wnids) > MAX_SHOWN else ""
            yield f"  classes {what}: {', '.join(wnids[:MAX_SHOWN])}{more}"
    shifts = [
        f"{f} {v:.2f}{f' ({word})' if (word := describe_shift(change, f)) else ''}"
        for f, v in change.psi.items()
    ]
    yield "  PSI: " + (", ".join(shifts) or "no images to compare")
