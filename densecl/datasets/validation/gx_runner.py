"""Run Great Expectations over tables, and report one line per row that breaks a rule."""

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from densecl.datasets.storage.filenames import to_printable

MAX_LISTED = 20  # findings per expectation that are listed; the rest is counted
CRITICAL, WARNING = "critical", "warning"

Suite = list[Any]  # of gxe.Expectation; meta["reason"] is a format string over the columns of a row
Run = Callable[[pd.DataFrame, Suite], "list[Finding]"]


class Finding(NamedTuple):
    critical: bool
    text: str
    images: tuple[str, ...] = ()  # image_ids: the image, then the one that it repeats


def build_expectation(
    expectation: str, reason: str, severity: str = CRITICAL, **arguments: object
) -> Any:
    """A Great Expectation by the name of its class."""
    import great_expectations.expectations as gxe

    return getattr(gxe, expectation)(severity=severity, meta={"reason": reason}, **arguments)


def create_runner() -> Run:
    """A function that runs a suite over a table in an ephemeral context: no files, progress bars or
    telemetry.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # Hundreds of lines at import where the root logger is at INFO; one module sets its own level.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports use modules that Python has deprecated
        import great_expectations as gx
        from great_expectations.data_context.types import base

        base.logger.setLevel(logging.WARNING)
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = base.ProgressBarsConfig(globally=False)
        asset = context.data_sources.add_pandas("manifests").add_dataframe_asset("manifest")
        batch_definition = asset.add_batch_definition_whole_dataframe("whole")

    def run_suite(frame: pd.DataFrame, rules: Suite) -> list[Finding]:
        for position, expectation in enumerate(rules):
            expectation.meta["position"] = position
        outcome: Any = batch_definition.get_batch({"dataframe": frame}).validate(
            gx.ExpectationSuite("manifest", expectations=rules),
            result_format={"result_format": "COMPLETE"},
        )
        failed = [result for result in outcome.results if not result.success]
        failed.sort(key=lambda result: result.expectation_config.meta["position"])  # not GX's order
        return [finding for result in failed for finding in _list_findings(result, frame)]

    return run_suite


def _list_findings(result: Any, frame: pd.DataFrame) -> list[Finding]:
    config = result.expectation_config
    reason, critical = config.meta["reason"], config.severity == CRITICAL
    rows = sorted(result.result.get("unexpected_index_list") or ())
    if not rows and "{" in reason:
        raise RuntimeError(
            f"Great Expectations could not evaluate {config.type}: {result.exception_info}"
        )
    if not rows:
        return [Finding(critical, reason)]
    findings = []
    for _, row in frame.loc[rows[:MAX_LISTED]].iterrows():
        values = {str(name): to_printable(value) for name, value in row.items()}
        image_ids = row.get("image_id"), row.get(f"{config.kwargs.get('column')}_id")
        findings.append(
            Finding(
                critical,
                f"{values['subject']}: {reason.format_map(values)}",
                tuple(image_id for image_id in image_ids if isinstance(image_id, str)),
            )
        )
    if len(rows) > MAX_LISTED:
        last = to_printable(frame.loc[rows[-1], "subject"])
        more = f"and {len(rows) - MAX_LISTED} more like the {MAX_LISTED} above, up to {last}"
        findings.append(Finding(critical, more))
    return findings
