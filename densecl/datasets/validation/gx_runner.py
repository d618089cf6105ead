"""Great Expectations run over tables, reported in our words: one line per row that breaks a
rule.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from densecl.datasets.storage.filenames import to_printable

MAX_LISTED = 20  # findings of one expectation that are spelt out; the rest is counted
CRITICAL, WARNING = "critical", "warning"

Suite = list[Any]  # of gxe.Expectation; meta["reason"] is a format string over the columns of a row
Run = Callable[[pd.DataFrame, Suite], "list[Finding]"]


class Finding(NamedTuple):
    critical: bool
    text: str
    images: tuple[str, ...] = ()  # image_ids: the one at fault, then the one that it repeats


def build_expectation(
    expectation: str, reason: str, severity: str = CRITICAL, **arguments: object
) -> Any:
    import great_expectations.expectations as gxe

    return getattr(gxe, expectation)(severity=severity, meta={"reason": reason}, **arguments)


def create_runner() -> Run:
    """A function that runs a suite over a table; holds an ephemeral context: no files, bars or
    telemetry.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # Hundreds of lines at import where the root logger is at INFO; one module sets a level of its
    # own.
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
            expectation.meta["place"] = position
        outcome = batch_definition.get_batch({"dataframe": frame}).validate(
            gx.ExpectationSuite("manifest", expectations=rules),
            result_format={"result_format": "COMPLETE"},
        )
        # GX answers in an order of its own.
        results: list[Any] = sorted(
            outcome.results, key=lambda result: _get_config(result).meta["place"]
        )
        return [
            finding
            for result in results
            if not result.success
            for finding in _list_findings(result, frame)
        ]

    return run_suite


def _get_config(result: Any) -> Any:
    return result.expectation_config


def _list_findings(result: Any, frame: pd.DataFrame) -> list[Finding]:
    config = _get_config(result)
    critical = config.severity == CRITICAL
    rows = sorted(result.result.get("unexpected_index_list") or ())
    if not rows and "{" in config.meta["reason"]:
        raise RuntimeError(
            f"Great Expectations could not evaluate {config.type}: {result.exception_info}"
        )
    if not rows:
        return [Finding(critical, config.meta["reason"])]
    findings = [
        Finding(
            critical,
            _format_line(frame.loc[row], config.meta["reason"]),
            _get_image_ids(frame.loc[row], config.kwargs),
        )
        for row in rows[:MAX_LISTED]
    ]
    if len(rows) > MAX_LISTED:
        more = frame.loc[rows[MAX_LISTED:], "subject"]
        findings.append(
            Finding(
                critical,
                f"and {len(more)} more like the {MAX_LISTED} above, up to "
                f"{to_printable(more.iloc[-1])}",
            )
        )
    return findings


def _get_image_ids(row: pd.Series, arguments: dict[str, Any]) -> tuple[str, ...]:
    """image_id of a row about an image, and that of the image which the rule's column says it
    repeats.
    """
    image_ids = (row.get("image_id"), row.get(f"{arguments.get('column')}_id"))
    return tuple(str(name) for name in image_ids if isinstance(name, str))


def _format_line(row: pd.Series, reason: str) -> str:
    values = {str(name): to_printable(value) for name, value in row.items()}
    return f"{values['subject']}: {reason.format_map(values)}"
