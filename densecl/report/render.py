"""The long table, the page and the pull-request text, all from one comparison; the same inputs give
the same bytes.
"""

from __future__ import annotations

from pathlib import Path

from densecl import paths
from densecl.analysis.comparison import compare, table
from densecl.artifacts import ReportPlan, write_text
from densecl.report.context import page, trained
from densecl.report.dvc_exports import write_tracked
from densecl.report.formatting import Number, Table
from densecl.report.summary import answer
from densecl.report.tables import plain
from densecl.report.templating import environment

__all__ = ["Number", "Table", "answer", "environment", "write_report"]


def write_report(plan: ReportPlan, root: Path = Path()) -> str:
    """The aggregate table and the answer as plain text; writes comparison.csv, report.html,
    report.md, metrics/ and plots/.
    """
    found = compare(plan, root)
    text = table(found).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_text(root / paths.COMPARISON, text)
    costs, histories = trained(plan, root)
    write_tracked(found, costs, histories, root)
    shown = page(found, costs, histories, root)
    for name, path in (("report.html", paths.REPORT_PAGE), ("report.md", paths.REPORT_TEXT)):
        write_text(root / path, environment(name).get_template(name).render(shown))
    missing = [f"Missing: {line}" for line in shown["missing"]]
    return "\n".join([plain(shown["aggregate"]), "", *shown["answer"], *shown["details"], *missing])
