"""Write the comparison as an HTML page, as Markdown for a pull request, as CSV and as plain
text.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.analysis.differences import SHIFTED_MEAN
from densecl.artifacts import write_text
from densecl.compare.changes import CostChange, ExperimentChanges
from densecl.compare.differences import Delta, ExperimentComparison
from densecl.compare.pairing import UNMATCHED_KINDS, describe_unmatched
from densecl.compare.summary import (
    build_sentences,
    describe_chance,
    format_interval,
    format_verdict,
    list_caveats,
)
from densecl.config.base import MODES
from densecl.cost.result import ModeCost, format_ratio
from densecl.pages.formatting import (
    align_columns,
    format_count,
    format_level,
    format_p_value,
    format_percent,
    format_points,
)
from densecl.pages.templates import create_environment
from densecl.report.charts.mode_styles import build_variant_css, style_modes

TEMPLATES = Path(__file__).parent / "templates"
MAX_LIST_ROWS = 40  # rows of a list in a pull request: a comment may hold 65,536 characters
MAX_VALUE_CHARS = 300  # characters of a value there
BAR_WIDTH = 200  # of the picture of an interval
CALL_LABELS = {
    "better": "better",
    "worse": "worse",
    "open": "not significant",
    "identical": "identical",
    "unlike": "not judged",
    "missing": "missing",
}
COUNTS = ("images", *UNMATCHED_KINDS)
COLUMNS = (
    *("dataset", "mode", "seeds", "metric", "a", "b", "difference", "low", "high", "p"),
    *("p_adjusted", "low_simultaneous", "high_simultaneous", "family"),
    *("detectable", "call", *COUNTS, "note"),
)


def write_comparison(
    comparison: ExperimentComparison, changes: ExperimentChanges, folder: Path, judged: str = ""
) -> str:
    """Write compare.html, compare.md and compare.csv to `folder`; return the verdict and a plain
    table as text. `judged`: the outcome of a criterion, stated below the verdict.
    """
    from markupsafe import Markup

    context = _build_context(comparison, changes)
    if judged and judged != context["verdict"]:
        context["sentences"].insert(0, f"--fail-if-worse: {judged}")
    styles = style_modes(comparison.modes)
    for name in ("compare.html", "compare.md"):
        environment = create_environment(TEMPLATES, markdown=name.endswith(".md"))
        environment.filters["key"] = lambda mode: styles[mode].css_class
        rendered = environment.get_template(name).render(
            context,
            variant_css=Markup(build_variant_css()),  # noqa: S704 - our own
        )
        write_text(folder / name, re.sub(r"\n{3,}", "\n\n", rendered))
    text = build_table(comparison, changes).to_csv(
        index=False, float_format="%.10g", lineterminator="\n"
    )
    write_text(folder / "compare.csv", text)
    return _format_plain_text(context)


def _build_context(comparison: ExperimentComparison, changes: ExperimentChanges) -> dict[str, Any]:
    # In the report's order; a mode that it does not know comes last.
    modes = sorted(comparison.modes, key=lambda mode: [*MODES, mode].index(mode))
    limits = [
        max(-interval.low, interval.high)
        for delta in comparison.deltas
        if (interval := delta.simultaneous or delta.difference)
    ]
    scale_limit = max(limits, default=0) or 0.01  # the end of the pictures' scale
    titles = comparison.titles
    unchanged = [
        f"{titles.get(d.dataset, d.dataset)} ({d.images_a:,})"
        for d in changes.data
        if not d.difference
    ]
    return {
        "verdict": format_verdict(comparison),
        "sentences": build_sentences(comparison, changes),
        "cautions": list_caveats(comparison, changes),
        "sides": [_format_side(comparison, letter) for letter in "AB"],
        "groups": [
            (
                mode,
                [
                    _format_delta(delta, scale_limit, comparison.seeds.get(mode, ()), titles)
                    for delta in comparison.deltas
                    if delta.mode == mode
                ],
            )
            for mode in modes
        ],
        "far": format_percent(scale_limit),
        "level": format_level(comparison.report_params.confidence),
        "alpha": f"{1 - comparison.report_params.confidence:.3g}",
        "family": max((delta.family for delta in comparison.deltas), default=0),
        "alone": [delta for delta in comparison.deltas if len(delta.per_seed) > 1],
        "costs": [_format_cost(c) for c in changes.costs],
        "changed": changes,
        "alike": f"The same images: {', '.join(unchanged)}."
        if unchanged
        else ""
        if changes.data
        else "Images: not known, there are no manifests.",
        "data": [
            d._replace(dataset=titles.get(d.dataset, d.dataset))
            for d in changes.data
            if d.difference
        ],
        "models": "; ".join(
            f"{', '.join(runs)}: {text}"
            for text, is_same in (("other weights", False), ("the same weights", True))
            if (runs := [run for run, same in changes.models.items() if same == is_same])
        ),
        "width": BAR_WIDTH,
        "longest": MAX_LIST_ROWS,
        "value": MAX_VALUE_CHARS,
        "mean": SHIFTED_MEAN,
        "titles": titles,
        "point": format_points,
        "percent": format_percent,
        "interval": format_interval,
    }


def _format_side(comparison: ExperimentComparison, letter: str) -> dict[str, str]:
    experiment = comparison.a if letter == "A" else comparison.b
    plan = experiment.plan
    return {
        "letter": letter,
        "name": experiment.origin.name,
        "commit": experiment.origin.commit[:12],
        "dirty": "changed since" if experiment.origin.dirty else "",
        "holds": f"{format_count(len(plan.datasets), 'set')}; {', '.join(plan.modes)}; "
        f"{_list_seeds(plan.seeds)}",
    }


def _list_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s'[: len(seeds) > 1]} {', '.join(map(str, seeds))}"


def _format_delta(
    delta: Delta, scale_limit: float, mode_seeds: tuple[int, ...], titles: Mapping[str, str]
) -> dict[str, Any]:
    """A line as it is shown; `bar` is its interval in px of BAR_WIDTH. What is tested is shown with
    the interval that holds for all rows at once.
    """
    estimate, is_mean = delta.simultaneous or delta.difference, delta.dataset == SHIFTED_MEAN
    unmatched = describe_unmatched(delta.unmatched)
    files = [paths.predictions_file(delta.dataset, delta.mode, seed) for seed in delta.seeds]
    note = (
        delta.note.partition("; ")[2] if is_mean else delta.note
    )  # its datasets are the rows above
    details = (
        f"{delta.images:,} images" if delta.images else "",
        describe_chance(delta),
        f"left out: {unmatched}" if unmatched else "",
        f"only {_list_seeds(delta.seeds)}" if delta.seeds and delta.seeds != mode_seeds else "",
        note,
    )
    return {
        "delta": delta,
        "label": "mean of shifted" if is_mean else titles.get(delta.dataset, delta.dataset),
        "a": format_percent(delta.a),
        "b": format_percent(delta.b),
        "difference": format_points(estimate.value) if estimate else CALL_LABELS[delta.call],
        "interval": format_interval(estimate) if estimate else "",
        "p": format_p_value(delta.simultaneous.p or 0) if delta.simultaneous else "",
        "call": CALL_LABELS[delta.call],
        "unmatched": unmatched,
        "details": "; ".join(filter(None, details)),
        "bar": {
            name: BAR_WIDTH / 2 * (1 + getattr(estimate, name) / scale_limit)
            for name in ("low", "value", "high")
            if estimate
        },
        "source": "" if is_mean else ", ".join(map(str, files)),
    }


def _format_cost(cost: CostChange) -> dict[str, str]:
    """Costs as "A → B"."""

    def format_change(format_side: Callable[[ModeCost], str]) -> str:
        return " → ".join(map(format_side, (cost.a, cost.b)))

    def format_time(format_side: Callable[[ModeCost], str]) -> str:
        return format_change(format_side) if cost.measured else "not measured"

    return {
        "mode": cost.mode,
        "step": format_time(lambda side: f"{1000 * side.seconds:,.1f}"),
        "none": format_time(lambda side: format_ratio(side.against_none)),
        "one_view": format_time(lambda side: format_ratio(side.against_one_view)),
        "memory": format_change(
            lambda side: "–" if side.memory_bytes is None else f"{side.memory_bytes / 2**20:,.0f}"
        ),
        "same": "the same measurement" if cost.is_same_run else "",
        "device": " → ".join(dict.fromkeys(cost.devices)),
    }


def _list_cost_metrics(cost: CostChange) -> Iterator[tuple[str, float, float]]:
    """(name, A, B) of what was measured in both."""
    a, b = cost.a, cost.b
    if cost.measured:
        yield "step_seconds", a.seconds, b.seconds
        yield "step_against_none", a.against_none.value, b.against_none.value
        yield "step_against_one_view", a.against_one_view.value, b.against_one_view.value
    if a.memory_bytes is not None and b.memory_bytes is not None:
        yield "memory_bytes", a.memory_bytes, b.memory_bytes


def _format_plain_text(context: dict[str, Any]) -> str:
    rows = [("mode", "set", "A", "B", "B − A", "")]
    for mode, lines in context["groups"]:
        for line in lines:
            # Verdict, reason for a missing cell, and images that are not compared.
            notes = (
                line["call"] if line["difference"] != line["call"] else "",
                describe_chance(line["delta"]),
                line["delta"].note if line["delta"].call == "missing" else "",
                f"left out: {line['unmatched']}" if line["unmatched"] else "",
            )
            difference = f"{line['difference']} {line['interval']}".strip()
            sides = (line["label"], line["a"], line["b"])
            rows.append((mode, *sides, difference, "; ".join(filter(None, notes))))
    sentences = (context["verdict"], *context["sentences"], *context["cautions"])
    return "\n".join([align_columns(rows), "", *sentences])


def build_table(comparison: ExperimentComparison, changes: ExperimentChanges) -> pd.DataFrame:
    """The long table of compare.csv: one row per number, fractions in [0, 1], costs in their
    units.
    """
    rows = []
    for delta in comparison.deltas:
        rows.append(_build_row(delta) | dict(delta.unmatched) | {"note": delta.note})
        for seed_delta in delta.per_seed if len(delta.per_seed) > 1 else ():
            call = "" if seed_delta.difference else "identical"
            rows.append(_build_row(seed_delta) | {"call": call})
    for cost in changes.costs:
        rows += [
            {
                "mode": cost.mode,
                "metric": name,
                "a": a,
                "b": b,
                "difference": b - a,
                "note": "the same measurement" if cost.is_same_run else "",
            }
            for name, a, b in _list_cost_metrics(cost)
        ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        dict.fromkeys((*COUNTS, "family"), "Int64")
    )


def _build_row(delta: Delta) -> dict[str, Any]:
    estimate = asdict(delta.difference) if delta.difference else {}
    if interval := delta.simultaneous:
        estimate |= {
            "p_adjusted": interval.p,
            "low_simultaneous": interval.low,
            "high_simultaneous": interval.high,
        }
    return {
        **{name: value for name, value in vars(delta).items() if name in COLUMNS},
        "seeds": " ".join(map(str, delta.seeds)),
        "metric": "top1",
        "difference": estimate.pop("value", None),
        "family": delta.family or None,
        "note": "",
        **estimate,
    }
