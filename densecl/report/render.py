"""The long table, the page and the pull-request text, all from one comparison; the same inputs give
the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.analysis.comparison import build_comparison_table, compare_modes
from densecl.artifacts import ReportPlan, write_text
from densecl.pages.templates import create_environment
from densecl.report.context import build_context, read_training_results
from densecl.report.dvc_exports import write_dvc_exports
from densecl.report.formatting import list_source_files
from densecl.report.tables import format_plain_text

TEMPLATES = Path(__file__).parent / "templates"


def write_report(plan: ReportPlan, root: Path = Path()) -> str:
    """The aggregate table and the answer as plain text; writes comparison.csv, report.html,
    report.md, metrics/ and plots/.
    """
    comparison = compare_modes(plan, root)
    text = build_comparison_table(comparison).to_csv(
        index=False, float_format="%.10g", lineterminator="\n"
    )
    write_text(root / paths.COMPARISON, text)
    costs, histories = read_training_results(plan, root)
    write_dvc_exports(comparison, costs, histories, root)
    context = build_context(comparison, costs, histories, root)
    for path in (paths.REPORT_PAGE, paths.REPORT_TEXT):
        write_text(root / path, render_page(path.name, context))
    missing = [f"Missing: {line}" for line in context["missing"]]
    return "\n".join(
        [
            format_plain_text(context["aggregate"]),
            "",
            *context["answer"],
            *context["details"],
            *missing,
        ]
    )


def render_page(name: str, context: Mapping[str, Any]) -> str:
    """The template of that name; `script_hash` is of the one script that the page's policy lets
    run.
    """
    from markupsafe import Markup

    environment = create_environment(TEMPLATES, markdown=name.endswith(".md"))
    environment.filters["files"] = list_source_files
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(name).render(
        context,
        script=Markup(script),  # noqa: S704 - our own
        script_hash=f"sha256-{digest}",
    )
