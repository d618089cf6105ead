"""Validate manifests: the rules for every dataset, as Great Expectations.

A verdict depends on the dataset's own manifest and, for an evaluation set, on that of the training
set: content that is in both is a failure of the evaluation set, so that a new dataset never changes
the verdict that training depends on.
"""

from collections.abc import Mapping, Sequence
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
    CRITICAL,
    WARNING,
    Finding,
    Run,
    Suite,
    build_expectation,
    create_runner,
)
from densecl.errors import DataError

PANDAS_TYPES = {"string": "str", "float": "float32"}  # Arrow's name -> pandas' name
WNID_IN_FILENAME = r"^(n\d{8})[_.-]"  # the names of ImageNet's training files hold their class
COPIES = ("kaggle", "webdataset", "parquet")  # layouts whose images have other names in folders
MISLABELLED_SHARE = 0.5  # of a class's images that are also in another class: no accident
# Of a validation class, the share that ReaL's raters confirm; about 0.9 if the folder is right.
MIN_CONFIRMED_SHARE = 0.05
NULL, BETWEEN = "ExpectColumnValuesToBeNull", "ExpectColumnValuesToBeBetween"
EQUAL = "ExpectColumnPairValuesToBeEqual"


class TrainReference(NamedTuple):
    """Properties of the training dataset that the other datasets are checked against."""

    classes: list[str]  # of the training set, sorted; or the dataset's groups of classes
    train: pd.DataFrame  # its usable images
    hashed: HashIndex  # their difference hashes


def check_manifests(
    manifests: dict[str, pd.DataFrame],
    validate_params: ValidateParams,
    declared: Mapping[str, DatasetParams] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, ValidationResult]:
    """Validation result of each dataset, in the order of `manifests`; equal input gives equal
    results.

    `declared` may hold the number of images and classes of a dataset, `groups` the names of its
    groups of classes, if these are its labels. DataError if the manifest of
    the training set is not among them: its folder names are the class list.
    """
    if TRAIN_SET not in manifests:
        raise DataError(
            f"validate: found manifests of {', '.join(manifests) or 'no set'}, expected "
            f"{TRAIN_SET} among them"
        )
    run = create_runner()
    findings = {name: run(frame, _build_column_rules()) for name, frame in manifests.items()}
    leaked: dict[str, frozenset[str]] = {}  # image_ids that are left out
    classes: list[str] = []
    grouped = {name: list(names) for name, names in (groups or {}).items()}
    if findings[TRAIN_SET]:
        unchecked = [Finding(True, f"not checked: the manifest of {TRAIN_SET} is not valid")]
        findings = {name: found or unchecked for name, found in findings.items()}
    else:
        train = select_usable(manifests[TRAIN_SET])
        classes = sorted(manifests[TRAIN_SET]["wnid"].unique())
        reference = TrainReference(classes, train, HashIndex(train))
        for name, frame in manifests.items():
            if not findings[name]:
                findings[name], leaked[name] = _collect_findings(
                    run,
                    name,
                    frame,
                    reference._replace(classes=grouped.get(name, classes)),
                    validate_params,
                    (declared or {}).get(name),
                )
    return {
        name: _build_result(
            name,
            frame,
            findings[name],
            validate_params,
            grouped.get(name, classes),
            leaked.get(name, frozenset()),
        )
        for name, frame in manifests.items()
    }


def _build_result(
    name: str,
    frame: pd.DataFrame,
    findings: list[Finding],
    validate_params: ValidateParams,
    classes: list[str],
    leaked: frozenset[str],
) -> ValidationResult:
    if not {"image_id", "problem", "wnid"} <= set(frame.columns):
        frame = pd.DataFrame({"image_id": [], "problem": [], "wnid": []}, dtype="str")
    images = select_usable(frame, leaked)
    bad = frame["image_id"][_select_faults(frame).notna() | frame["image_id"].isin(leaked)]
    failures = tuple(finding.text for finding in findings if finding.critical)
    present = set(images["wnid"])
    return ValidationResult(
        dataset=name,
        passed=not failures,
        images=len(images),
        classes=len(present),
        absent=tuple(wnid for wnid in classes if wnid not in present),
        excluded=tuple(bad) if validate_params.bad_images == "exclude" else (),
        leaked=len(leaked),
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
) -> tuple[list[Finding], frozenset[str]]:
    """The findings of a dataset, and its images that are in the training set, if params leave such
    images out.
    """
    images, is_train = select_usable(frame), name == TRAIN_SET
    excludes = validate_params.bad_images == "exclude"
    files = frame.assign(
        subject=frame["path"],
        listed=frame["label"].map(dict(enumerate(reference.classes))),
        fault=_select_faults(frame),
        expected_id=_find_expected_ids(name, frame, declared),
        named=_find_named_classes(frame, reference.classes),
    )
    columns = [
        images.assign(subject=images["path"], odd=images["problem"].where(images["problem"] != "")),
        find_repeated(images),
        find_near_duplicates(images, reference.hashed, reference.train, is_train=is_train),
    ]
    if not is_train:
        columns.append(find_same_content(images, reference.train))
    images = pd.concat(columns, axis=1)
    leaks = images["leaked"].notna() if excludes and not is_train else images["image_id"].isna()
    classes = _build_class_table(name, frame, images[~leaks], reference.classes, declared)
    least = validate_params.minimum_per_class
    classes["few"] = classes["images"].where(classes["odd"].isna() & (classes["images"] < least))
    findings = [
        *run(files, _build_file_rules(reference.classes, excludes)),
        *run(images, _build_image_rules(is_train, excludes)),
        *run(classes, _build_class_rules(least)),
        *_check_counts(name, frame, reference.classes, declared),
    ]
    return findings, frozenset(images["image_id"][leaks])


def _build_column_rules() -> Suite:
    return [
        build_expectation(
            "ExpectTableColumnsToMatchOrderedList",
            f"found other columns, expected {', '.join(SCHEMA.names)}",
            column_list=SCHEMA.names,
        ),
        *(
            build_expectation(
                "ExpectColumnValuesToBeOfType",
                f"column {field.name}: found another type or no such column, expected {field.type}",
                column=field.name,
                type_=PANDAS_TYPES.get(str(field.type), str(field.type)),
            )
            for field in SCHEMA
        ),
    ]


def _build_file_rules(classes: list[str], excludes: bool) -> Suite:
    """Rules for all rows, including unreadable files."""
    last = len(classes) - 1
    return [
        build_expectation("ExpectColumnValuesToNotBeNull", "has no image_id", column="image_id"),
        build_expectation(
            "ExpectColumnValuesToBeUnique",
            "image_id {image_id} occurs more than once",
            column="image_id",
        ),
        build_expectation(
            EQUAL,
            "found image_id {image_id}, expected {expected_id}; run the stage prepare of this "
            "dataset again",
            column_A="image_id",
            column_B="expected_id",
        ),
        build_expectation(
            BETWEEN,
            f"found label {{label}}, expected 0 to {last}",
            column="label",
            min_value=0,
            max_value=last,
        ),
        build_expectation(
            "ExpectColumnValuesToBeInSet",
            "found class {wnid}, which the train set does not have",
            column="wnid",
            value_set=classes,
        ),
        build_expectation(
            EQUAL,
            "found class {wnid} with label {label}, of {listed}",
            column_A="wnid",
            column_B="listed",
        ),
        build_expectation(
            NULL,
            "found in class {wnid}, but its file name says {named}; mislabelled folder or file",
            column="named",
        ),
        build_expectation(
            NULL,
            "{fault}; excluded" if excludes else "{fault}",
            WARNING if excludes else CRITICAL,
            column="fault",
        ),
    ]


def _build_image_rules(is_train: bool, excludes: bool) -> Suite:
    """Rules for usable rows."""
    rule = "which no evaluation image may share; remove one of them"
    leaked = build_expectation(
        NULL,
        "same content as {leaked} of the train set" + ("; excluded" if excludes else f", {rule}"),
        WARNING if excludes else CRITICAL,
        column="leaked",
    )
    return [
        build_expectation(
            "ExpectTableRowCountToBeBetween",
            "found no usable image, expected one or more",
            min_value=1,
        ),
        *(
            build_expectation(BETWEEN, reason, column=column, min_value=1)
            for column, reason in {
                "width": "found width {width}, expected 1 or more",
                "height": "found height {height}, expected 1 or more",
                "bytes": "found {bytes} bytes, expected 1 or more",
            }.items()
        ),
        build_expectation(
            "ExpectColumnValuesToMatchRegex",
            "found sha256 '{sha256}', expected 64 hex digits",
            column="sha256",
            regex="^[0-9a-f]{64}$",
        ),
        *([] if is_train else [leaked]),
        build_expectation(
            NULL, "same content as {repeated}; both are used", WARNING, column="repeated"
        ),
        build_expectation(NULL, "{near}; compare both", WARNING, column="near"),
        build_expectation(NULL, "{odd}", WARNING, column="odd"),
    ]


def _build_class_rules(least: int) -> Suite:
    """Rules for the classes that the dataset has or must have."""
    return [
        build_expectation(NULL, "{odd}", column="odd"),
        build_expectation(NULL, "{shared}; one of the two folders is mislabelled", column="shared"),
        build_expectation(
            NULL,
            "ReaL's raters see this class in {confirmed} of its {rated} rated images; mislabelled "
            "folder?",
            WARNING,
            column="doubted",
        ),
        build_expectation(
            NULL,
            f"found {{images}} usable images, expected {least} or more "
            f"(validate.minimum_per_class)",
            column="few",
        ),
    ]


def _build_class_table(
    name: str,
    frame: pd.DataFrame,
    images: pd.DataFrame,
    classes: list[str],
    declared: DatasetParams | None,
) -> pd.DataFrame:
    """One row per class that the dataset has or must have: number of images, and problems of the
    class as a whole.
    """
    declares_classes = declared is not None and declared.classes is not None
    official = None if declares_classes else get_official_counts(name, classes)
    expected = classes if name == CONTROL_SET and not declares_classes else []
    missing = f"missing: found no image of it, expected every class of {TRAIN_SET}"
    if official:
        expected = official[1]
        missing = "missing: found no image of it, expected every class of the published dataset"
    present = set(frame["wnid"].dropna())
    wnids = sorted({*present, *expected})
    extra = "found images of it, which the published dataset does not have"
    odd = [
        missing if wnid not in present else extra if official and wnid not in expected else None
        for wnid in wnids
    ]
    subjects = [f"class {wnid}" for wnid in wnids]
    table = pd.DataFrame({"subject": subjects, "odd": odd}, wnids).astype("str")
    table["images"] = images["wnid"].value_counts().reindex(wnids, fill_value=0)
    table["shared"] = _describe_shared_content(images, table["images"])
    is_rated = official is not None and name == CONTROL_SET
    agreement = compute_real_agreement(images if is_rated else images.iloc[:0]).dropna()
    rated = agreement.astype(int).groupby(images["wnid"]).agg(["sum", "count"]).reindex(wnids)
    table[["confirmed", "rated"]] = rated.astype("Int64")
    table["doubted"] = rated["sum"].where(rated["sum"] < MIN_CONFIRMED_SHARE * rated["count"])
    return table.reset_index(drop=True)


def _describe_shared_content(images: pd.DataFrame, counts: pd.Series) -> pd.Series:
    """[classes]: a message for each class in which most images are byte-identical to images of
    another class; null for other classes.
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
    """Compare numbers of images and classes with those in params, or else with the published
    ones.
    """
    images, wnids = get_official_counts(name, classes) or (None, None)
    found = {"images": len(frame), "classes": frame["wnid"].nunique()}
    published = {"images": images, "classes": wnids and len(wnids)}
    findings = []
    for column, number in found.items():
        expected, source = getattr(declared, column, None), "as declared in params"
        if expected is None:
            expected, source = published[column], "as published"
        if expected not in (None, number):
            findings.append(
                Finding(
                    True,
                    f"found {number} {column}, expected {expected} {source}; complete the dataset, "
                    f"or say in datasets.{name}.{column} how many it has",
                )
            )
    return findings


def _find_expected_ids(name: str, frame: pd.DataFrame, declared: DatasetParams | None) -> pd.Series:
    """[files] the set's name and the path, or in a copy any other name that the set's is before."""
    by_path, ids = f"{name}/" + frame["path"], frame["image_id"]
    is_copy = declared is not None and declared.layout in COPIES
    return ids.where(ids.str.startswith(f"{name}/", na=False), by_path) if is_copy else by_path


def _find_named_classes(frame: pd.DataFrame, classes: list[str]) -> pd.Series:
    """[files] class stated in the file name, if it differs from that of the folder."""
    named = frame["image_id"].str.rpartition("/")[2].str.extract(WNID_IN_FILENAME, expand=False)
    return named.where(named.isin(classes) & (named != frame["wnid"]))


def _select_faults(frame: pd.DataFrame) -> pd.Series:
    return frame["problem"].where(~frame["problem"].isin(HARMLESS_PROBLEMS))
