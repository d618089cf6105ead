"""Great Expectations run over tables, told in our words: one line a row that breaks a rule."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from densecl.datasets.storage.filenames import shown

LISTED = 20  # findings of one expectation that are spelt out; the rest is counted
CRITICAL, WARNING = "critical", "warning"

Suite = list[Any]  # of gxe.Expectation; meta["reason"] is a format string over the columns of a row
Run = Callable[[pd.DataFrame, Suite], "list[Finding]"]


class Finding(NamedTuple):
    critical: bool
    text: str
    images: tuple[str, ...] = ()  # image_ids: the one at fault, then the one that it repeats


def rule(expectation: str, reason: str, severity: str = CRITICAL, **arguments: object) -> Any:
    import great_expectations.expectations as gxe

    return getattr(gxe, expectation)(severity=severity, meta={"reason": reason}, **arguments)


def runner() -> Run:
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
        whole = asset.add_batch_definition_whole_dataframe("whole")

    def run(frame: pd.DataFrame, rules: Suite) -> list[Finding]:
        for place, each in enumerate(rules):
            each.meta["place"] = place
        outcome = whole.get_batch({"dataframe": frame}).validate(
            gx.ExpectationSuite("manifest", expectations=rules),
            result_format={"result_format": "COMPLETE"},
        )
        # GX answers in an order of its own.
        results: list[Any] = sorted(
            outcome.results, key=lambda result: _config(result).meta["place"]
        )
        return [
            finding for result in results if not result.success for finding in _told(result, frame)
        ]

    return run


def _config(result: Any) -> Any:
    return result.expectation_config


def _told(result: Any, frame: pd.DataFrame) -> list[Finding]:
    config = _config(result)
    critical = config.severity == CRITICAL
    rows = sorted(result.result.get("unexpected_index_list") or ())
    if not rows and "{" in config.meta["reason"]:
        raise RuntimeError(
            f"Great Expectations could not evaluate {config.type}: {result.exception_info}"
        )
    if not rows:
        return [Finding(critical, config.meta["reason"])]
    told = [
        Finding(
            critical,
            _line(frame.loc[row], config.meta["reason"]),
            _images(frame.loc[row], config.kwargs),
        )
        for row in rows[:LISTED]
    ]
    if len(rows) > LISTED:
        more = frame.loc[rows[LISTED:], "subject"]
        told.append(
            Finding(
                critical,
                f"and {len(more)} more like the {LISTED} above, up to {shown(more.iloc[-1])}",
            )
        )
    return told


def _images(row: pd.Series, given: dict[str, Any]) -> tuple[str, ...]:
    """image_id of a row about an image, and that of the image which the rule's column says it
    repeats.
    """
    named = (row.get("image_id"), row.get(f"{given.get('column')}_id"))
    return tuple(str(name) for name in named if isinstance(name, str))


def _line(row: pd.Series, reason: str) -> str:
    values = {str(name): shown(value) for name, value in row.items()}
    return f"{values['subject']}: {reason.format_map(values)}"
