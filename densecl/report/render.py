"""The long table, the page and the pull-request text, all from one comparison; the same inputs give
the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from densecl import paths
from densecl.analysis.comparison import build_comparison_table, compare_modes
from densecl.artifacts import ReportPlan, write_text
from densecl.report.context import build_context, read_training_results
from densecl.report.dvc_exports import write_dvc_exports
from densecl.report.formatting import TableCell, TableData
from densecl.report.summary import describe_results
from densecl.report.tables import format_plain_text
from densecl.report.templating import create_environment

__all__ = ["TableCell", "TableData", "create_environment", "describe_results", "write_report"]


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
    for name, path in (("report.html", paths.REPORT_PAGE), ("report.md", paths.REPORT_TEXT)):
        write_text(root / path, create_environment(name).get_template(name).render(context))
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
