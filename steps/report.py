"""The comparison of the modes: table, page and text."""

from __future__ import annotations

from densecl import layout
from densecl.records import ReportPlan, read_json, write_text
from densecl.reporting.render import write_report


def main() -> None:
    """Write reports/comparison.csv, report.html, report.md and, for the terminal, table.txt."""
    table = write_report(read_json(ReportPlan, layout.plan("report")))
    write_text(layout.REPORT_TABLE, table + "\n")
