"""The comparison of the modes: table, page and text."""

from __future__ import annotations

from densecl import layout
from densecl.records import ReportPlan, read_json
from densecl.reporting.render import write_report


def main() -> None:
    """Write reports/comparison.csv, report.html and report.md; print the table and the page's path."""
    print(write_report(read_json(ReportPlan, layout.plan("report"))))
    print(f"\n{layout.REPORT_PAGE}")
