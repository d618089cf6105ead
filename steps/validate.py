"""Validate the manifests: critical failures stop the pipeline once the page that shows them is
written.
"""

from densecl import paths
from densecl.artifacts import (
    SkippedFiles,
    ValidatePlan,
    ValidationResult,
    read_json,
    write_json,
)
from densecl.config.titles import get_title
from densecl.datasets.storage.manifest import read_manifest, read_missing_reason
from densecl.datasets.storage.remote_root import locate_root
from densecl.datasets.storage.skipped_files import describe_skipped
from densecl.datasets.validation.expectations import check_manifests
from densecl.datasets.validation.page import write_validation_page
from densecl.errors import DataError


def main() -> None:
    """Write data/validation/<set>.json and reports/validation.html; DataError on a critical
    failure.

    Of a set that params let fail, the failure stays in its verdict, and evaluation leaves the
    reason in its cells.
    """
    plan = read_json(ValidatePlan, paths.plan_file("validate"))
    manifests = {name: read_manifest(paths.manifest_file(name)) for name in plan.datasets}
    reasons = {name: read_missing_reason(paths.manifest_file(name)) for name in plan.datasets}
    present = {name: frame for name, frame in manifests.items() if not reasons[name]}
    results = check_manifests(present, plan.values, plan.datasets, plan.groups)
    verdicts = {
        name: results[name]
        if name in present
        else ValidationResult(dataset=name, passed=False, failures=(reasons[name],))
        for name in plan.datasets
    }
    roots = {name: locate_root(plan.datasets[name]) for name in present}
    skipped = {name: read_json(SkippedFiles, paths.skipped_file(name)) for name in plan.datasets}
    titles = {name: get_title(plan.model_dump(), name) for name in plan.datasets}
    write_validation_page(verdicts, manifests, skipped, paths.VALIDATION_PAGE, roots, titles)
    failures = [
        f"{name}: {failure}"
        for name, verdict in verdicts.items()
        if name not in plan.optional
        for failure in verdict.failures
    ]
    if failures:
        raise DataError(
            "\n".join(
                [*failures, f"{len(failures)} critical failures; see {paths.VALIDATION_PAGE}"]
            )
        )
    for name, verdict in verdicts.items():
        write_json(paths.validation_file(name), verdict)
        print(describe_verdict(verdict, skipped[name], titles[name]))
        for warning in (
            *(f"left out: {failure}" for failure in verdict.failures),
            *verdict.warnings,
        ):
            print(f"warning: {name}: {warning}")
    print(f"details: {paths.VALIDATION_PAGE}")


def describe_verdict(verdict: ValidationResult, skipped: SkippedFiles, title: str = "") -> str:
    """One line: what of a dataset is used and what is not, also where all is well."""
    name = verdict.dataset if title in ("", verdict.dataset) else f"{title} ({verdict.dataset})"
    state = "" if verdict.passed else "did not pass: "
    leaked = f", {verdict.leaked:,} of them also in the train set" if verdict.leaked else ""
    return (
        f"{name}: {state}{verdict.images:,} usable images of {verdict.classes:,} "
        f"classes; excluded {len(verdict.excluded):,}{leaked}; skipped "
        f"{describe_skipped(skipped.skipped)}; {len(verdict.warnings):,} warnings"
    )
