"""The comparison of the modes: table, page and text."""

import json
import sys

from densecl import paths
from densecl.artifacts import ReportPlan, read_json, write_text
from densecl.monitoring.mlflow_store import log_report
from densecl.monitoring.training_records import read_training_records
from densecl.report.render import write_report
from densecl.report.training_results import list_fingerprints


def main() -> None:
    """Write reports/comparison.csv, report.html, report.md, metrics/, plots/ and table.txt (for the
    terminal); log them to MLflow.
    """
    plan = read_json(ReportPlan, paths.plan_file("report"))
    records = read_training_records(list_fingerprints(plan))
    table = write_report(plan, records=records)
    write_text(paths.REPORT_TABLE, table + "\n")
    top1 = {
        f"{mode}/{dataset}": value
        for mode in plan.modes
        for dataset, value in json.loads(
            paths.metrics_file(mode).read_text(encoding="utf-8")
        ).items()
    }
    print(f"report: {paths.REPORT_PAGE}; datasets: {paths.VALIDATION_PAGE}")
    failed = log_report((paths.REPORT_PAGE, paths.REPORT_TEXT, paths.COMPARISON), top1)
    if failed:
        print(f"warning: the report is written, but not in MLflow: {failed}", file=sys.stderr)
    print(f"table: {paths.REPORT_TABLE}\npage:  {paths.REPORT_PAGE.resolve().as_uri()}")
