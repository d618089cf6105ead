"""The comparison of the modes: table, page and text."""

from __future__ import annotations

import json
import sys

from densecl import paths
from densecl.artifacts import ReportPlan, read_json, write_text
from densecl.monitoring.mlflow_store import log_report
from densecl.report.render import write_report


def main() -> None:
    """Write reports/comparison.csv, report.html, report.md, metrics/, plots/ and, for the terminal,
    table.txt; tell MLflow.
    """
    plan = read_json(ReportPlan, paths.plan_file("report"))
    table = write_report(plan)
    write_text(paths.REPORT_TABLE, table + "\n")
    failed = log_report(
        (paths.REPORT_PAGE, paths.REPORT_TEXT, paths.COMPARISON), _read_metrics(plan)
    )
    if failed:
        print(f"warning: the report is written, but not in MLflow: {failed}", file=sys.stderr)


def _read_metrics(plan: ReportPlan) -> dict[str, float]:
    """<mode>/<set> -> top-1, as in reports/metrics/."""
    files = {
        mode: json.loads(paths.metrics_file(mode).read_text(encoding="utf-8"))
        for mode in plan.modes
    }
    return {
        f"{mode}/{name}": value
        for mode, top1_by_set in files.items()
        for name, value in top1_by_set.items()
    }
