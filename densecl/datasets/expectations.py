"""Manifests -> verdicts: what every set must fulfil, as Great Expectations.

A verdict depends on its own manifest and, for an evaluation set, on the train set's: content that is in both is the
evaluation set's failure, so that a new set never changes the verdict that training depends on.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pandas as pd

from densecl.datasets.images import HARMLESS
from densecl.datasets.manifest import SCHEMA, shown, usable
from densecl.errors import DataError
from densecl.params import TRAIN_SET, Validate
from densecl.records import Verdict

LISTED = 20  # findings of one expectation that are spelt out; the rest is counted
CRITICAL, WARNING = "critical", "warning"
TYPES = {"string": "str"}  # Arrow's name -> pandas' name

Suite = list[Any]  # of gxe.Expectation; meta["reason"] is a format string over the columns of a row
Run = Callable[[pd.DataFrame, Suite], "list[Finding]"]


class Finding(NamedTuple):
    critical: bool
    text: str


def check(manifests: dict[str, pd.DataFrame], values: Validate, train_set: str = TRAIN_SET) -> dict[str, Verdict]:
    """Verdict of each set, in the order of `manifests`; equal input gives equal verdicts.

    DataError if the train set's manifest is not among them: its folder names are the class list.
    """
    if train_set not in manifests:
        raise DataError(
            f"validate: found manifests of {', '.join(manifests) or 'no set'}, expected {train_set} among them"
        )
    run = _runner()
    train = manifests[train_set]
    form = {name: run(frame, _columns()) for name, frame in manifests.items()}
    if form[train_set]:
        # Without it no other set can be judged.
        form = {
            name: form[name] or [Finding(True, f"not checked: the manifest of {train_set} is not valid")]
            for name in form
        }
    return {
        name: _verdict(name, frame, form[name] or _findings(run, frame, train, name == train_set, values), values)
        for name, frame in manifests.items()
    }


def _verdict(name: str, frame: pd.DataFrame, findings: list[Finding], values: Validate) -> Verdict:
    formed = {"image_id", "problem", "wnid"} <= set(frame.columns)
    images = usable(frame) if formed else frame.iloc[:0]
    bad = _bad(frame)["image_id"] if formed and values.bad_images == "exclude" else ()
    failures = tuple(finding.text for finding in findings if finding.critical)
    return Verdict(
        dataset=name,
        passed=not failures,
        images=len(images),
        classes=images["wnid"].nunique() if formed else 0,
        excluded=tuple(bad),
        failures=failures,
        warnings=tuple(finding.text for finding in findings if not finding.critical),
    )


def _findings(run: Run, frame: pd.DataFrame, train: pd.DataFrame, is_train: bool, values: Validate) -> list[Finding]:
    classes = sorted(train["wnid"].unique())
    names = dict(enumerate(classes))
    files = frame.assign(subject=frame["path"], listed=frame["label"].map(names), fault=_faults(frame))
    images = usable(frame)
    images = images.assign(
        subject=images["path"],
        leaked=_nothing(images) if is_train else images["sha256"].map(_first_paths(usable(train))),
        repeated=_repeated(images),
        odd=images["problem"].where(images["problem"] != ""),
    )
    counts = images["wnid"].value_counts().reindex(sorted(frame["wnid"].unique()), fill_value=0)
    table = pd.DataFrame({"subject": "class " + counts.index.astype("str"), "images": counts.to_numpy()})
    return [
        *run(files, _of_files(classes, values)),
        *run(images, _of_images()),
        *run(table, _of_classes(values)),
    ]


def _columns() -> Suite:
    types = [
        _rule(
            "ExpectColumnValuesToBeOfType",
            f"column {field.name}: found another type or no such column, expected {field.type}",
            column=field.name,
            type_=TYPES.get(str(field.type), str(field.type)),
        )
        for field in SCHEMA
    ]
    listing = f"found other columns, expected {', '.join(SCHEMA.names)}"
    return [_rule("ExpectTableColumnsToMatchOrderedList", listing, column_list=SCHEMA.names), *types]


def _of_files(classes: list[str], values: Validate) -> Suite:
    """Over all rows, unreadable files included."""
    null, last = "ExpectColumnValuesToBeNull", len(classes) - 1
    repeated, outside = "image_id {image_id} stands more than once", f"found label {{label}}, expected 0 to {last}"
    unknown, other = (
        "found class {wnid}, which the train set has not",
        "found class {wnid} with label {label}, of {listed}",
    )
    return [
        _rule("ExpectColumnValuesToNotBeNull", "has no image_id", column="image_id"),
        _rule("ExpectColumnValuesToBeUnique", repeated, column="image_id"),
        _rule("ExpectColumnValuesToBeBetween", outside, column="label", min_value=0, max_value=last),
        _rule("ExpectColumnValuesToBeInSet", unknown, column="wnid", value_set=classes),
        _rule("ExpectColumnPairValuesToBeEqual", other, column_A="wnid", column_B="listed"),
        _rule(null, "{fault}; excluded", WARNING, column="fault")
        if values.bad_images == "exclude"
        else _rule(null, "{fault}", column="fault"),
    ]


def _of_images() -> Suite:
    """Over the rows that can be used."""
    null, between = "ExpectColumnValuesToBeNull", "ExpectColumnValuesToBeBetween"
    hexadecimal = "found sha256 '{sha256}', expected 64 hex digits"
    leaked = "same content as {leaked} of the train set, which no evaluation image may share; remove one of them"
    return [
        _rule("ExpectTableRowCountToBeBetween", "found no usable image, expected one or more", min_value=1),
        _rule(between, "found width {width}, expected 1 or more", column="width", min_value=1),
        _rule(between, "found height {height}, expected 1 or more", column="height", min_value=1),
        _rule(between, "found {bytes} bytes, expected 1 or more", column="bytes", min_value=1),
        _rule("ExpectColumnValuesToMatchRegex", hexadecimal, column="sha256", regex="^[0-9a-f]{64}$"),
        _rule(null, leaked, column="leaked"),
        _rule(null, "same content as {repeated}; both are used", WARNING, column="repeated"),
        _rule(null, "{odd}", WARNING, column="odd"),
    ]


def _of_classes(values: Validate) -> Suite:
    least = values.minimum_per_class
    reason = f"found {{images}} usable images, expected {least} or more (validate.minimum_per_class)"
    return [_rule("ExpectColumnValuesToBeBetween", reason, column="images", min_value=least)]


def _rule(expectation: str, reason: str, severity: str = CRITICAL, **arguments: object) -> Any:
    import great_expectations.expectations as gxe

    return getattr(gxe, expectation)(severity=severity, meta={"reason": reason}, **arguments)


def _runner() -> Run:
    """A function that runs a suite over a table; holds an ephemeral context: no files, bars or telemetry."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # Hundreds of lines at import where the root logger is at INFO; one module sets a level of its own.
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
        for place, rule in enumerate(rules):
            rule.meta["place"] = place
        outcome = whole.get_batch({"dataframe": frame}).validate(
            gx.ExpectationSuite("manifest", expectations=rules), result_format={"result_format": "COMPLETE"}
        )
        # GX answers in an order of its own.
        results: list[Any] = sorted(outcome.results, key=lambda result: _config(result).meta["place"])
        return [finding for result in results if not result.success for finding in _told(result, frame)]

    return run


def _config(result: Any) -> Any:
    return result.expectation_config


def _told(result: Any, frame: pd.DataFrame) -> list[Finding]:
    config = _config(result)
    critical = config.severity == CRITICAL
    rows = sorted(result.result.get("unexpected_index_list") or ())
    if not rows and "{" in config.meta["reason"]:
        raise RuntimeError(f"Great Expectations could not evaluate {config.type}: {result.exception_info}")
    if not rows:
        return [Finding(critical, config.meta["reason"])]
    told = [Finding(critical, _line(frame.loc[row], config.meta["reason"])) for row in rows[:LISTED]]
    if len(rows) > LISTED:
        more = frame.loc[rows[LISTED:], "subject"]
        told.append(Finding(critical, f"and {len(more)} more like the {LISTED} above, up to {shown(more.iloc[-1])}"))
    return told


def _line(row: pd.Series, reason: str) -> str:
    values = {str(name): shown(value) for name, value in row.items()}
    return f"{values['subject']}: {reason.format_map(values)}"


def _bad(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[~frame["problem"].isin(HARMLESS)]


def _faults(frame: pd.DataFrame) -> pd.Series:
    return frame["problem"].where(~frame["problem"].isin(HARMLESS))


def _nothing(frame: pd.DataFrame) -> pd.Series:
    return pd.Series([None] * len(frame), frame.index, dtype="str")


def _first_paths(images: pd.DataFrame) -> pd.Series:
    return images.drop_duplicates("sha256").set_index("sha256")["path"]


def _repeated(images: pd.DataFrame) -> pd.Series:
    """[images] path of the first image with the same content, and whether its class is another; null for the first."""
    groups = images.groupby("sha256", sort=False)
    first = groups["path"].transform("first")
    other = groups["label"].transform("first") != images["label"]
    return (first + other.map({True: " (of another class)", False: ""})).where(first != images["path"])
