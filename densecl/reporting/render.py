"""The long table, the page and the pull-request text, all from one comparison; the same inputs give the same bytes."""

from __future__ import annotations

from pathlib import Path

from densecl import layout
from densecl.records import ReportPlan, write_text
from densecl.reporting.answer import answer
from densecl.reporting.comparison import compare, table
from densecl.reporting.numbers import Number, Table
from densecl.reporting.page import page, trained
from densecl.reporting.tables import plain
from densecl.reporting.templating import environment
from densecl.reporting.tracked import write_tracked

__all__ = ["Number", "Table", "answer", "environment", "write_report"]


def write_report(plan: ReportPlan, root: Path = Path()) -> str:
    """The aggregate table and the answer as plain text; writes comparison.csv, report.html, report.md, metrics/ and plots/."""
    found = compare(plan, root)
    text = table(found).to_csv(index=False, float_format="%.10g", lineterminator="\n")
    write_text(root / layout.COMPARISON, text)
    costs, histories = trained(plan, root)
    write_tracked(found, costs, histories, root)
    shown = page(found, costs, histories, root)
    for name, path in (("report.html", layout.REPORT_PAGE), ("report.md", layout.REPORT_TEXT)):
        write_text(root / path, environment(name).get_template(name).render(shown))
    missing = [f"Missing: {line}" for line in shown["missing"]]
    return "\n".join([plain(shown["aggregate"]), "", *shown["answer"], *shown["details"], *missing])
