"""Gate on the manifests: critical failures stop the pipeline, after the page that shows them is
written.
"""

from __future__ import annotations

from pathlib import Path

from densecl import paths
from densecl.artifacts import ValidatePlan, Verdict, read_json, write_json
from densecl.datasets.manifests.missing_manifest import absence
from densecl.datasets.storage.manifest import read_manifest
from densecl.datasets.validation.expectations import check
from densecl.datasets.validation.page import render_validation
from densecl.errors import DataError


def main() -> None:
    """Write data/validation/<set>.json and reports/validation.html; DataError on a critical
    failure.

    Of a set that params let fail, the failure stays in its verdict, and evaluation leaves the
    reason in its cells.
    """
    plan = read_json(ValidatePlan, paths.plan("validate"))
    manifests = {name: read_manifest(paths.manifest(name)) for name in plan.datasets}
    absent = {name: why for name in plan.datasets if (why := absence(paths.manifest(name)))}
    there = {name: frame for name, frame in manifests.items() if name not in absent}
    checked = check(there, plan.values, plan.datasets)
    verdicts = {
        name: _absent(name, absent[name]) if name in absent else checked[name]
        for name in plan.datasets
    }
    roots = {name: Path(dataset.root) for name, dataset in plan.datasets.items()}
    render_validation(verdicts, manifests, paths.VALIDATION_PAGE, roots)
    stopping = {name: verdict for name, verdict in verdicts.items() if name not in plan.optional}
    failures = [
        f"{name}: {failure}" for name, verdict in stopping.items() for failure in verdict.failures
    ]
    if failures:
        raise DataError(
            "\n".join(
                [*failures, f"{len(failures)} critical failures; see {paths.VALIDATION_PAGE}"]
            )
        )
    for name, verdict in verdicts.items():
        write_json(paths.verdict(name), verdict)
        for warning in (
            *(f"left out: {failure}" for failure in verdict.failures),
            *verdict.warnings,
        ):
            print(f"warning: {name}: {warning}")


def _absent(name: str, reason: str) -> Verdict:
    return Verdict(
        dataset=name,
        passed=False,
        images=0,
        classes=0,
        excluded=(),
        absent=(),
        failures=(reason,),
        warnings=(),
    )
