"""Gate on the manifests: critical failures stop the pipeline, after the page that shows them is written."""

from __future__ import annotations

from pathlib import Path

from densecl import layout
from densecl.datasets.expectations import check
from densecl.datasets.manifest import read_manifest
from densecl.errors import DataError
from densecl.records import ValidatePlan, read_json, write_json
from densecl.reporting.validation import render_validation


def main() -> None:
    """Write data/validation/<set>.json and reports/validation.html; DataError on a critical failure."""
    plan = read_json(ValidatePlan, layout.plan("validate"))
    manifests = {name: read_manifest(layout.manifest(name)) for name in plan.datasets}
    verdicts = check(manifests, plan.values, plan.datasets)
    roots = {name: Path(dataset.root) for name, dataset in plan.datasets.items()}
    render_validation(verdicts, manifests, layout.VALIDATION_PAGE, roots)
    failures = [f"{name}: {failure}" for name, verdict in verdicts.items() for failure in verdict.failures]
    if failures:
        raise DataError("\n".join([*failures, f"{len(failures)} critical failures; see {layout.VALIDATION_PAGE}"]))
    for name, verdict in verdicts.items():
        write_json(layout.verdict(name), verdict)
        for warning in verdict.warnings:
            print(f"warning: {name}: {warning}")
