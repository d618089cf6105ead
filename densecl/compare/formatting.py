"""How lines, costs and changes are shown: percent, points, words."""

from __future__ import annotations

from dataclasses import dataclass

from densecl import paths
from densecl.analysis.differences import SHIFTED_MEAN
from densecl.compare.changes import CostChange, ExperimentChanges
from densecl.compare.deltas import Delta
from densecl.compare.differences import ExperimentComparison
from densecl.compare.image_contents import ImageDiff
from densecl.compare.summary import format_interval
from densecl.pages.formatting import format_p_value, format_percent, format_points
from densecl.report.charts.svg import COLOURS

CALL_LABELS = {
    "better": "better",
    "worse": "worse",
    "open": "not significant",
    "identical": "identical",
    "unlike": "not judged",
    "missing": "missing",
}
BAR_WIDTH = 200  # of the picture of an interval


@dataclass(frozen=True)
class IntervalBar:
    """An interval on the scale of its table, in units of BAR_WIDTH."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class DeltaRow:
    """A line as it is shown."""

    delta: Delta
    label: str
    a: str
    b: str
    difference: str
    interval: str
    p: str
    call: str
    details: str
    bar: IntervalBar | None
    source: str


def list_modes(comparison: ExperimentComparison) -> list[str]:
    """In the report's order; one that it does not know comes last."""
    return sorted(comparison.modes, key=lambda mode: [*COLOURS, mode].index(mode))


def format_side(comparison: ExperimentComparison, letter: str) -> dict[str, str]:
    experiment = comparison.a if letter == "A" else comparison.b
    plan = experiment.plan
    seeds = f"seed{'s'[: len(plan.seeds) > 1]} {', '.join(map(str, plan.seeds))}"
    return {
        "letter": letter,
        "name": experiment.origin.name,
        "commit": experiment.origin.commit[:12],
        "dirty": "changed since" if experiment.origin.dirty else "",
        "holds": f"{len(plan.datasets)} "
        f"set{'s'[: len(plan.datasets) > 1]}; {', '.join(plan.modes)}; {seeds}",
    }


def compute_scale_limit(comparison: ExperimentComparison) -> float:
    """The largest limit of an interval: the end of the pictures' scale."""
    return (
        max(
            (
                max(-estimate.low, estimate.high)
                for delta in comparison.deltas
                if (estimate := delta.difference)
            ),
            default=0,
        )
        or 0.01
    )


def format_delta(delta: Delta, scale_limit: float, mode_seeds: tuple[int, ...]) -> DeltaRow:
    estimate = delta.difference
    files = [
        str(paths.predictions_file(delta.dataset, delta.mode, seed))
        for seed in delta.seeds
        if delta.dataset != SHIFTED_MEAN
    ]
    details = [f"{delta.images:,} images"] if delta.images else []
    note = (
        delta.note.partition("; ")[2] if delta.dataset == SHIFTED_MEAN else delta.note
    )  # the sets stand above it
    details += [f"left out: {delta.unmatched}"] if str(delta.unmatched) else []
    if delta.seeds and delta.seeds != mode_seeds:
        details.append(f"only seed{'s'[: len(delta.seeds) > 1]} {', '.join(map(str, delta.seeds))}")
    return DeltaRow(
        delta,
        "mean of shifted" if delta.dataset == SHIFTED_MEAN else delta.dataset,
        format_percent(delta.a),
        format_percent(delta.b),
        format_points(estimate.value) if estimate else CALL_LABELS[delta.call],
        format_interval(estimate) if estimate else "",
        "" if delta.p_holm is None else format_p_value(delta.p_holm),
        CALL_LABELS[delta.call],
        "; ".join([*details, *([note] if note else [])]),
        IntervalBar(
            *(
                BAR_WIDTH / 2 * (1 + x / scale_limit)
                for x in (estimate.low, estimate.value, estimate.high)
            )
        )
        if estimate
        else None,
        ", ".join(files),
    )


def format_cost(costs: CostChange) -> dict[str, str]:
    """Each entry "A → B"; what was not trained again is the same training."""

    def format_change(name: str, number_format: str, factor: float = 1.0) -> str:
        return (
            f"{factor * costs.a[name]:{number_format}} → {factor * costs.b[name]:{number_format}}"
        )

    return {
        "mode": costs.mode,
        "step": format_change("step_seconds", ",.1f", 1000),
        "ratio": f"{costs.b['step_seconds'] / costs.a['step_seconds']:.2f} ×",
        "none": format_change("against_none", ".2f"),
        "memory": format_change("peak_memory_bytes", ".2f", 2.0**-30),
        "minutes": format_change("wall_seconds", ".1f", 1 / 60),
        "rate": format_change("images_per_second", ",.0f"),
        "same": "the same training" if costs.is_same_run else "",
        "device": costs.devices[0]
        if costs.devices[0] == costs.devices[1]
        else " → ".join(costs.devices),
    }


def format_data_change(
    change: ImageDiff, changes: ExperimentChanges
) -> tuple[str, str, str, str] | None:
    """Set, images of A, of B, what differs; None where nothing does."""
    kinds = (
        (change.added, "added"),
        (change.removed, "removed"),
        (change.changed, "with another content"),
        (change.relabelled, "with another class"),
        (change.moved, "of those added only renamed"),
    )
    texts = [f"{count:,} {kind}" for count, kind in kinds if count]
    missing_sides = [
        letter for letter, images in zip("AB", change.images, strict=True) if images is None
    ]
    if missing_sides:
        texts.append(f"no manifest in {' and '.join(missing_sides)}")
    elif not texts and not change.is_identical:
        texts.append("the same images; other facts of the manifest differ")
    if changes.sources.get(change.dataset) is False and not missing_sides:
        texts.append("the folder or archive has changed")
    counts = ["–" if n is None else f"{n:,}" for n in change.images]
    return (change.dataset, counts[0], counts[1], ", ".join(texts)) if texts else None


def describe_unchanged_sets(changes: ExperimentChanges) -> str:
    unchanged = [
        f"{d.dataset} ({d.images[0]:,})" for d in changes.data if not format_data_change(d, changes)
    ]
    if not changes.data:
        return "Images: not known, there are no manifests."
    return f"The same images: {', '.join(unchanged)}." if unchanged else ""


def describe_model_changes(changes: ExperimentChanges) -> str:
    """Which models were trained again."""
    unchanged, retrained = (
        [run for run, same_weights in changes.models.items() if same_weights == is_same]
        for is_same in (True, False)
    )
    texts = [
        f"{', '.join(runs)}: {text}"
        for runs, text in ((retrained, "other weights"), (unchanged, "the same weights"))
        if runs
    ]
    return "; ".join(texts)
