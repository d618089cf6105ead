"""The comparison as a page, as text for a pull request, as a long table and for a terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from densecl.analysis.differences import SHIFTED_MEAN
from densecl.artifacts import write_text
from densecl.compare import formatting
from densecl.compare.changes import ExperimentChanges
from densecl.compare.differences import ExperimentComparison
from densecl.compare.summary import (
    build_sentences,
    format_interval,
    format_verdict,
    list_caveats,
)
from densecl.compare.table import build_table
from densecl.pages.formatting import align_columns, format_percent, format_points
from densecl.pages.templates import create_environment

TEMPLATES = Path(__file__).parent / "templates"
MAX_LIST_ROWS = 40  # rows of a list in a pull request: a comment may hold 65,536 characters
MAX_VALUE_CHARS = 300  # characters of a value there


def write_comparison(
    comparison: ExperimentComparison, changes: ExperimentChanges, folder: Path
) -> str:
    """Writes compare.html, compare.md and compare.csv to `folder`; the verdict and a plain table as
    text.
    """
    context = _build_context(comparison, changes)
    for name in ("compare.html", "compare.md"):
        environment = create_environment(TEMPLATES, markdown=name.endswith(".md"))
        rendered = environment.get_template(name).render(context)
        write_text(folder / name, re.sub(r"\n{3,}", "\n\n", rendered))
    text = build_table(comparison, changes).to_csv(
        index=False, float_format="%.10g", lineterminator="\n"
    )
    write_text(folder / "compare.csv", text)
    return _format_plain_text(context)


def _build_context(comparison: ExperimentComparison, changes: ExperimentChanges) -> dict[str, Any]:
    scale_limit = formatting.compute_scale_limit(comparison)
    groups = [
        (
            mode,
            [
                formatting.format_delta(delta, scale_limit, comparison.seeds.get(mode, ()))
                for delta in comparison.deltas
                if delta.mode == mode
            ],
        )
        for mode in formatting.list_modes(comparison)
    ]
    return {
        "verdict": format_verdict(comparison),
        "sentences": build_sentences(comparison, changes),
        "cautions": list_caveats(comparison, changes),
        "sides": [formatting.format_side(comparison, letter) for letter in "AB"],
        "groups": groups,
        "far": format_percent(scale_limit),
        "level": f"{100 * comparison.report_params.confidence:g}",
        "samples": comparison.report_params.bootstrap_samples,
        "alpha": f"{1 - comparison.report_params.confidence:.3g}",
        "alone": [delta for delta in comparison.deltas if len(delta.per_seed) > 1],
        "costs": [formatting.format_cost(c) for c in changes.costs],
        "changed": changes,
        "alike": formatting.describe_unchanged_sets(changes),
        "data": [row for d in changes.data if (row := formatting.format_data_change(d, changes))],
        "models": formatting.describe_model_changes(changes),
        "width": formatting.BAR_WIDTH,
        "longest": MAX_LIST_ROWS,
        "value": MAX_VALUE_CHARS,
        "mean": SHIFTED_MEAN,
        "point": format_points,
        "percent": format_percent,
        "interval": format_interval,
    }


def _format_plain_text(context: dict[str, Any]) -> str:
    rows = [("mode", "set", "A", "B", "B − A", "")]
    for mode, entries in context["groups"]:
        rows += [
            (mode, e.label, e.a, e.b, f"{e.difference} {e.interval}".strip(), _describe_delta(e))
            for e in entries
        ]
    return "\n".join(
        [
            align_columns(rows),
            "",
            context["verdict"],
            *context["sentences"],
            *context["cautions"],
        ]
    )


def _describe_delta(e: formatting.DeltaRow) -> str:
    """The call, why a cell is missing and what of it is left out."""
    call, unmatched = e.call if e.difference != e.call else "", str(e.delta.unmatched)
    reason = e.delta.note if e.delta.call == "missing" else ""
    return "; ".join(t for t in (call, reason, f"left out: {unmatched}" if unmatched else "") if t)
