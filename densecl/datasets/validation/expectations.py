"""Manifests -> verdicts: what every set must fulfil, as Great Expectations.

A verdict depends on its own manifest and, for an evaluation set, on the train set's: content that
is in both is the evaluation set's failure, so that a new set never changes the verdict that
training depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from densecl.artifacts import Evidence, ValidationResult
from densecl.config.params import CONTROL_SET, TRAIN_SET, DatasetParams, ValidateParams
from densecl.datasets.imagenet import compute_real_agreement, get_official_counts
from densecl.datasets.storage.decode import HARMLESS_PROBLEMS
from densecl.datasets.storage.manifest import SCHEMA, select_usable
from densecl.datasets.validation.duplicates import (
    HashIndex,
    find_near_duplicates,
    find_repeated,
    find_same_content,
)
from densecl.datasets.validation.gx_runner import (
    WARNING,
    Finding,
    Run,
    Suite,
    build_expectation,
    create_runner,
)
from densecl.errors import DataError

PANDAS_TYPES = {"string": "str", "float": "float32"}  # Arrow's name -> pandas' name
WNID_IN_FILENAME = r"^(n\d{8})[_.-]"  # ImageNet's training files carry their class in their name
MISLABELLED_SHARE = 0.5  # share of a class's images that are also another class's: no accident
MIN_CONFIRMED_SHARE = (
    0.05  # share of a validation class that ReaL's raters confirm; of a true one about nine tenths
)


class TrainReference(NamedTuple):
    """What the sets are judged against."""

    classes: list[str]  # of the train set, sorted
    train: pd.DataFrame  # its usable images
    hashed: HashIndex  # their difference hashes


def check_manifests(
    manifests: dict[str, pd.DataFrame],
    validate_params: ValidateParams,
    declared: Mapping[str, DatasetParams] | None = None,
) -> dict[str, ValidationResult]:
    """Verdict of each set, in the order of `manifests`; equal input gives equal verdicts.

    `declared` may say how many images and classes a set has. DataError if the train set's manifest
    is not among them: its folder names are the class list.
    """
    if TRAIN_SET not in manifests:
        raise DataError(
            f"validate: found manifests of {', '.join(manifests) or 'no set'}, expected "
            f"{TRAIN_SET} among them"
        )
    run = create_runner()
    column_findings = {name: run(frame, _build_column_rules()) for name, frame in manifests.items()}
    if column_findings[TRAIN_SET]:
        # Without it no other set can be judged.
        unchecked = [Finding(True, f"not checked: the manifest of {TRAIN_SET} is not valid")]
        return {
            name: _build_result(
                name, frame, column_findings[name] or unchecked, validate_params, []
            )
            for name, frame in manifests.items()
        }
    train = select_usable(manifests[TRAIN_SET])
    reference = TrainReference(
        sorted(manifests[TRAIN_SET]["wnid"].unique()), train, HashIndex(train)
    )
    verdicts = {}
    for name, frame in manifests.items():
        findings = column_findings[name] or _collect_findings(
            run, name, frame, reference, validate_params, (declared or {}).get(name)
        )
        verdicts[name] = _build_result(name, frame, findings, validate_params, reference.classes)
    return verdicts


def _build_result(
    name: str,
    frame: pd.DataFrame,
    findings: list[Finding],
    validate_params: ValidateParams,
    classes: list[str],
) -> ValidationResult:
    is_readable = {"image_id", "problem", "wnid"} <= set(frame.columns)
    images = select_usable(frame) if is_readable else frame.iloc[:0]
    bad = (
        frame["image_id"][_select_faults(frame).notna()]
        if is_readable and validate_params.bad_images == "exclude"
        else ()
    )
    failures = tuple(finding.text for finding in findings if finding.critical)
    present = set(images["wnid"]) if is_readable else set()
    return ValidationResult(
        dataset=name,
        passed=not failures,
        images=len(images),
        classes=len(present),
        absent=tuple(wnid for wnid in classes if wnid not in present),
        excluded=tuple(bad),
        failures=failures,
        warnings=tuple(finding.text for finding in findings if not finding.critical),
        evidence=tuple(
            Evidence(text=finding.text, images=finding.images)
            for finding in findings
            if finding.images
        ),
    )


def _collect_findings(
    run: Run,
    name: str,
    frame: pd.DataFrame,
    reference: TrainReference,
    validate_params: ValidateParams,
    declared: DatasetParams | None,
) -> list[Finding]:
    images, is_train = select_usable(frame), name == TRAIN_SET
    files = frame.assign(
        subject=frame["path"],
        listed=frame["label"].map(dict(enumerate(reference.classes))),
        fault=_select_faults(frame),
        expected_id=f"{name}/" + frame["path"],
        named=_find_named_classes(frame, reference.classes),
    )
    images = images.assign(
        subject=images["path"], odd=images["problem"].where(images["problem"] != "")
    )
    leaked = find_same_content(images, reference.train) if not is_train else None
    columns = [
        leaked,
        find_repeated(images),
        find_near_duplicates(images, reference.hashed, reference.train, is_train=is_train),
    ]
    images = pd.concat([images, *(column for column in columns if column is not None)], axis=1)
    classes = _build_class_table(name, frame, images, reference.classes, declared)
    return [
        *run(files, _build_file_rules(reference.classes, validate_params)),
        *run(images, _build_image_rules(is_train)),
        *run(classes, _build_class_rules()),
        *run(classes[classes["odd"].isna()], _build_fill_rules(validate_params)),
        *_check_counts(name, frame, reference.classes, declared),
    ]


def _build_column_rules() -> Suite:
    types = [
        build_expectation(
            "ExpectColumnValuesToBeOfType",
            f"column {field.name}: found another type or no such column, expected {field.type}",
            column=field.name,
            type_=PANDAS_TYPES.get(str(field.type), str(field.type)),
        )
        for field in SCHEMA
    ]
    listing = f"found other columns, expected {', '.join(SCHEMA.names)}"
    return [
        build_expectation(
            "ExpectTableColumnsToMatchOrderedList", listing, column_list=SCHEMA.names
        ),
        *types,
    ]


def _build_file_rules(classes: list[str], validate_params: ValidateParams) -> Suite:
    """Over all rows, unreadable files included."""
    null, last = "ExpectColumnValuesToBeNull", len(classes) - 1
    repeated, outside = (
        "image_id {image_id} stands more than once",
        f"found label {{label}}, expected 0 to {last}",
    )
    unknown, other = (
        "found class {wnid}, which the train set has not",
        "found class {wnid} with label {label}, of {listed}",
    )
    named = "found in class {wnid}, but its file name says {named}; mislabelled folder or file"
    return [
        build_expectation("ExpectColumnValuesToNotBeNull", "has no image_id", column="image_id"),
        build_expectation("ExpectColumnValuesToBeUnique", repeated, column="image_id"),
        build_expectation(
            "ExpectColumnPairValuesToBeEqual",
            "found image_id {image_id}, expected {expected_id}; run the stage "
            "prepare of this set again",
            column_A="image_id",
            column_B="expected_id",
        ),
        build_expectation(
            "ExpectColumnValuesToBeBetween", outside, column="label", min_value=0, max_value=last
        ),
        build_expectation("ExpectColumnValuesToBeInSet", unknown, column="wnid", value_set=classes),
        build_expectation(
            "ExpectColumnPairValuesToBeEqual", other, column_A="wnid", column_B="listed"
        ),
        build_expectation(null, named, column="named"),
        build_expectation(null, "{fault}; excluded", WARNING, column="fault")
        if validate_params.bad_images == "exclude"
        else build_expectation(null, "{fault}", column="fault"),
    ]


def _build_image_rules(is_train: bool) -> Suite:
    """Over the rows that can be used."""
    null, between = "ExpectColumnValuesToBeNull", "ExpectColumnValuesToBeBetween"
    hexadecimal = "found sha256 '{sha256}', expected 64 hex digits"
    leaked = (
        "same content as {leaked} of the train set, which no "
        "evaluation image may share; remove one of them"
    )
    return [
        build_expectation(
            "ExpectTableRowCountToBeBetween",
            "found no usable image, expected one or more",
            min_value=1,
        ),
        build_expectation(
            between, "found width {width}, expected 1 or more", column="width", min_value=1
        ),
        build_expectation(
            between, "found height {height}, expected 1 or more", column="height", min_value=1
        ),
        build_expectation(
            between, "found {bytes} bytes, expected 1 or more", column="bytes", min_value=1
        ),
        build_expectation(
            "ExpectColumnValuesToMatchRegex", hexadecimal, column="sha256", regex="^[0-9a-f]{64}$"
        ),
        *([] if is_train else [build_expectation(null, leaked, column="leaked")]),
        build_expectation(
            null, "same content as {repeated}; both are used", WARNING, column="repeated"
        ),
        build_expectation(null, "{near}; compare both", WARNING, column="near"),
        build_expectation(null, "{odd}", WARNING, column="odd"),
    ]


def _build_class_rules() -> Suite:
    """Over the classes that the set has or must have."""
    null = "ExpectColumnValuesToBeNull"
    doubted = (
        "ReaL's raters see this class in {confirmed} of its "
        "{rated} rated images; mislabelled folder?"
    )
    return [
        build_expectation(null, "{odd}", column="odd"),
        build_expectation(null, "{shared}; one of the two folders is mislabelled", column="shared"),
        build_expectation(null, doubted, WARNING, column="doubted"),
    ]


def _build_fill_rules(validate_params: ValidateParams) -> Suite:
    """Over the classes that the set has."""
    least = validate_params.minimum_per_class
    few = f"found {{images}} usable images, expected {least} or more (validate.minimum_per_class)"
    return [
        build_expectation("ExpectColumnValuesToBeBetween", few, column="images", min_value=least)
    ]


def _build_class_table(
    name: str,
    frame: pd.DataFrame,
    images: pd.DataFrame,
    classes: list[str],
    declared: DatasetParams | None,
) -> pd.DataFrame:
    """One row a class that the set has or must have: how many images, and what is odd about them as
    a whole.
    """
    official = (
        get_official_counts(name, classes) if declared is None or declared.classes is None else None
    )
    present = set(frame["wnid"].dropna())
    expected = (
        official[1]
        if official
        else classes
        if name == CONTROL_SET and not (declared and declared.classes)
        else []
    )
    wnids = sorted({*present, *expected})
    source = "the published set" if official else TRAIN_SET
    missing = f"missing: found no image of it, expected every class of {source}"
    extra = "found images of it, which the published set has not"
    odd = [
        missing if wnid not in present else extra if official and wnid not in expected else None
        for wnid in wnids
    ]
    table = pd.DataFrame(
        {"subject": [f"class {wnid}" for wnid in wnids], "odd": odd}, wnids
    ).astype("str")
    table["images"] = images["wnid"].value_counts().reindex(wnids, fill_value=0)
    table["shared"] = _describe_shared_content(images, table["images"])
    agreement = (
        compute_real_agreement(images).dropna()
        if official and name == CONTROL_SET
        else pd.Series([], dtype="object")
    )
    rated = agreement.astype(int).groupby(images["wnid"]).agg(["sum", "count"]).reindex(wnids)
    table["confirmed"], table["rated"] = (
        rated["sum"].astype("Int64"),
        rated["count"].astype("Int64"),
    )
    table["doubted"] = rated["sum"].where(rated["sum"] < MIN_CONFIRMED_SHARE * rated["count"])
    return table.reset_index(drop=True)


def _describe_shared_content(images: pd.DataFrame, counts: pd.Series) -> pd.Series:
    """[classes] the message for a class most of whose images have the same bytes as another's; null
    for the others.
    """
    texts = pd.Series(None, counts.index, dtype="str")
    copies = images[images["other"].notna()].drop_duplicates(["wnid", "sha256"])
    for wnid in copies["wnid"].unique():
        other = copies.loc[copies["wnid"] == wnid, "other"]
        if other.size >= max(2, MISLABELLED_SHARE * counts[wnid]):
            texts[wnid] = (
                f"{len(other)} of its {counts[wnid]} images have the same content as images of "
                f"class {other.mode()[0]}"
            )
    return texts


def _check_counts(
    name: str, frame: pd.DataFrame, classes: list[str], declared: DatasetParams | None
) -> list[Finding]:
    """Images and classes of all files, against what params declare, else against what the authors
    published.
    """
    official = get_official_counts(name, classes)
    expected = {"images": official[0], "classes": len(official[1])} if official else {}
    source = dict.fromkeys(expected, "as published")
    for column in ("images", "classes"):
        declared_count = getattr(declared, column, None)
        if declared_count is not None:
            expected[column], source[column] = declared_count, "as params say"
    found = {"images": len(frame), "classes": frame["wnid"].nunique()}
    return [
        Finding(
            True,
            f"found {found[column]} {column}, expected {number} {source[column]}; complete the "
            f"set, or "
            f"say in "
            f"datasets.{name}.{column} how many it has",
        )
        for column, number in expected.items()
        if found[column] != number
    ]


def _find_named_classes(frame: pd.DataFrame, classes: list[str]) -> pd.Series:
    """[files] the class that the file's own name carries, where it is another than the folder's."""
    named = frame["path"].str.rpartition("/")[2].str.extract(WNID_IN_FILENAME, expand=False)
    return named.where(named.isin(classes) & (named != frame["wnid"]))


def _select_faults(frame: pd.DataFrame) -> pd.Series:
    return frame["problem"].where(~frame["problem"].isin(HARMLESS_PROBLEMS))
