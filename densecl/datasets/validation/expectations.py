"""Manifests -> verdicts: what every set must fulfil, as Great Expectations.

A verdict depends on its own manifest and, for an evaluation set, on the train set's: content that
is in both is the evaluation set's failure, so that a new set never changes the verdict that
training depends on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from densecl.artifacts import Evidence, Verdict
from densecl.config.params import CONTROL_SET, TRAIN_SET, Dataset, Validate
from densecl.datasets.imagenet import confirmed, published
from densecl.datasets.storage.decode import HARMLESS
from densecl.datasets.storage.manifest import SCHEMA, usable
from densecl.datasets.validation.duplicates import (
    Hashed,
    near_duplicates,
    repeated_in,
    same_content,
)
from densecl.datasets.validation.gx_runner import WARNING, Finding, Run, Suite, rule, runner
from densecl.errors import DataError

TYPES = {"string": "str", "float": "float32"}  # Arrow's name -> pandas' name
OWN_CLASS = r"^(n\d{8})[_.-]"  # ImageNet's training files carry their class in their name
MOSTLY = 0.5  # share of a class's images that are also another class's: no accident
DOUBTED = (
    0.05  # share of a validation class that ReaL's raters confirm; of a true one about nine tenths
)


class Known(NamedTuple):
    """What the sets are judged against."""

    classes: list[str]  # of the train set, sorted
    train: pd.DataFrame  # its usable images
    hashed: Hashed  # their difference hashes


def check(
    manifests: dict[str, pd.DataFrame],
    values: Validate,
    declared: Mapping[str, Dataset] | None = None,
) -> dict[str, Verdict]:
    """Verdict of each set, in the order of `manifests`; equal input gives equal verdicts.

    `declared` may say how many images and classes a set has. DataError if the train set's manifest
    is not among them: its folder names are the class list.
    """
    if TRAIN_SET not in manifests:
        raise DataError(
            f"validate: found manifests of {', '.join(manifests) or 'no set'}, expected "
            f"{TRAIN_SET} among them"
        )
    run = runner()
    form = {name: run(frame, _columns()) for name, frame in manifests.items()}
    if form[TRAIN_SET]:
        # Without it no other set can be judged.
        unread = [Finding(True, f"not checked: the manifest of {TRAIN_SET} is not valid")]
        return {
            name: _verdict(name, frame, form[name] or unread, values, [])
            for name, frame in manifests.items()
        }
    train = usable(manifests[TRAIN_SET])
    known = Known(sorted(manifests[TRAIN_SET]["wnid"].unique()), train, Hashed(train))
    verdicts = {}
    for name, frame in manifests.items():
        findings = form[name] or _findings(
            run, name, frame, known, values, (declared or {}).get(name)
        )
        verdicts[name] = _verdict(name, frame, findings, values, known.classes)
    return verdicts


def _verdict(
    name: str, frame: pd.DataFrame, findings: list[Finding], values: Validate, classes: list[str]
) -> Verdict:
    formed = {"image_id", "problem", "wnid"} <= set(frame.columns)
    images = usable(frame) if formed else frame.iloc[:0]
    bad = (
        frame["image_id"][_faults(frame).notna()]
        if formed and values.bad_images == "exclude"
        else ()
    )
    failures = tuple(finding.text for finding in findings if finding.critical)
    present = set(images["wnid"]) if formed else set()
    return Verdict(
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


def _findings(
    run: Run,
    name: str,
    frame: pd.DataFrame,
    known: Known,
    values: Validate,
    declared: Dataset | None,
) -> list[Finding]:
    images, is_train = usable(frame), name == TRAIN_SET
    files = frame.assign(
        subject=frame["path"],
        listed=frame["label"].map(dict(enumerate(known.classes))),
        fault=_faults(frame),
        expected_id=f"{name}/" + frame["path"],
        named=_named(frame, known.classes),
    )
    images = images.assign(
        subject=images["path"], odd=images["problem"].where(images["problem"] != "")
    )
    leaked = same_content(images, known.train) if not is_train else None
    columns = [
        leaked,
        repeated_in(images),
        near_duplicates(images, known.hashed, known.train, inside=is_train),
    ]
    images = pd.concat([images, *(column for column in columns if column is not None)], axis=1)
    classes = _classes(name, frame, images, known.classes, declared)
    return [
        *run(files, _of_files(known.classes, values)),
        *run(images, _of_images(is_train)),
        *run(classes, _of_classes()),
        *run(classes[classes["odd"].isna()], _fill(values)),
        *_counts(name, frame, known.classes, declared),
    ]


def _columns() -> Suite:
    types = [
        rule(
            "ExpectColumnValuesToBeOfType",
            f"column {field.name}: found another type or no such column, expected {field.type}",
            column=field.name,
            type_=TYPES.get(str(field.type), str(field.type)),
        )
        for field in SCHEMA
    ]
    listing = f"found other columns, expected {', '.join(SCHEMA.names)}"
    return [rule("ExpectTableColumnsToMatchOrderedList", listing, column_list=SCHEMA.names), *types]


def _of_files(classes: list[str], values: Validate) -> Suite:
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
        rule("ExpectColumnValuesToNotBeNull", "has no image_id", column="image_id"),
        rule("ExpectColumnValuesToBeUnique", repeated, column="image_id"),
        rule(
            "ExpectColumnPairValuesToBeEqual",
            "found image_id {image_id}, expected {expected_id}; run the stage "
            "prepare of this set again",
            column_A="image_id",
            column_B="expected_id",
        ),
        rule("ExpectColumnValuesToBeBetween", outside, column="label", min_value=0, max_value=last),
        rule("ExpectColumnValuesToBeInSet", unknown, column="wnid", value_set=classes),
        rule("ExpectColumnPairValuesToBeEqual", other, column_A="wnid", column_B="listed"),
        rule(null, named, column="named"),
        rule(null, "{fault}; excluded", WARNING, column="fault")
        if values.bad_images == "exclude"
        else rule(null, "{fault}", column="fault"),
    ]


def _of_images(is_train: bool) -> Suite:
    """Over the rows that can be used."""
    null, between = "ExpectColumnValuesToBeNull", "ExpectColumnValuesToBeBetween"
    hexadecimal = "found sha256 '{sha256}', expected 64 hex digits"
    leaked = (
        "same content as {leaked} of the train set, which no "
        "evaluation image may share; remove one of them"
    )
    return [
        rule(
            "ExpectTableRowCountToBeBetween",
            "found no usable image, expected one or more",
            min_value=1,
        ),
        rule(between, "found width {width}, expected 1 or more", column="width", min_value=1),
        rule(between, "found height {height}, expected 1 or more", column="height", min_value=1),
        rule(between, "found {bytes} bytes, expected 1 or more", column="bytes", min_value=1),
        rule(
            "ExpectColumnValuesToMatchRegex", hexadecimal, column="sha256", regex="^[0-9a-f]{64}$"
        ),
        *([] if is_train else [rule(null, leaked, column="leaked")]),
        rule(null, "same content as {repeated}; both are used", WARNING, column="repeated"),
        rule(null, "{near}; look at both", WARNING, column="near"),
        rule(null, "{odd}", WARNING, column="odd"),
    ]


def _of_classes() -> Suite:
    """Over the classes that the set has or must have."""
    null = "ExpectColumnValuesToBeNull"
    doubted = (
        "ReaL's raters see this class in {confirmed} of its "
        "{rated} rated images; mislabelled folder?"
    )
    return [
        rule(null, "{odd}", column="odd"),
        rule(null, "{shared}; one of the two folders is mislabelled", column="shared"),
        rule(null, doubted, WARNING, column="doubted"),
    ]


def _fill(values: Validate) -> Suite:
    """Over the classes that the set has."""
    least = values.minimum_per_class
    few = f"found {{images}} usable images, expected {least} or more (validate.minimum_per_class)"
    return [rule("ExpectColumnValuesToBeBetween", few, column="images", min_value=least)]


def _classes(
    name: str,
    frame: pd.DataFrame,
    images: pd.DataFrame,
    classes: list[str],
    declared: Dataset | None,
) -> pd.DataFrame:
    """One row a class that the set has or must have: how many images, and what is odd about them as
    a whole.
    """
    official = published(name, classes) if declared is None or declared.classes is None else None
    present = set(frame["wnid"].dropna())
    wanted = (
        official[1]
        if official
        else classes
        if name == CONTROL_SET and not (declared and declared.classes)
        else []
    )
    here = sorted({*present, *wanted})
    of = "the published set" if official else TRAIN_SET
    missing = f"missing: found no image of it, expected every class of {of}"
    extra = "found images of it, which the published set has not"
    odd = [
        missing if each not in present else extra if official and each not in wanted else None
        for each in here
    ]
    table = pd.DataFrame({"subject": [f"class {each}" for each in here], "odd": odd}, here).astype(
        "str"
    )
    table["images"] = images["wnid"].value_counts().reindex(here, fill_value=0)
    table["shared"] = _shared(images, table["images"])
    seen = (
        confirmed(images).dropna()
        if official and name == CONTROL_SET
        else pd.Series([], dtype="object")
    )
    rated = seen.astype(int).groupby(images["wnid"]).agg(["sum", "count"]).reindex(here)
    table["confirmed"], table["rated"] = (
        rated["sum"].astype("Int64"),
        rated["count"].astype("Int64"),
    )
    table["doubted"] = rated["sum"].where(rated["sum"] < DOUBTED * rated["count"])
    return table.reset_index(drop=True)


def _shared(images: pd.DataFrame, counts: pd.Series) -> pd.Series:
    """[classes] what is told of a class most of whose images have the same bytes as another's; null
    for the others.
    """
    told = pd.Series(None, counts.index, dtype="str")
    copies = images[images["other"].notna()].drop_duplicates(["wnid", "sha256"])
    for wnid in copies["wnid"].unique():
        other = copies.loc[copies["wnid"] == wnid, "other"]
        if other.size >= max(2, MOSTLY * counts[wnid]):
            told[wnid] = (
                f"{len(other)} of its {counts[wnid]} images have the same content as images of "
                f"class {other.mode()[0]}"
            )
    return told


def _counts(
    name: str, frame: pd.DataFrame, classes: list[str], declared: Dataset | None
) -> list[Finding]:
    """Images and classes of all files, against what params declare, else against what the authors
    published.
    """
    official = published(name, classes)
    expected = {"images": official[0], "classes": len(official[1])} if official else {}
    source = dict.fromkeys(expected, "as published")
    for kind in ("images", "classes"):
        given = getattr(declared, kind, None)
        if given is not None:
            expected[kind], source[kind] = given, "as params say"
    found = {"images": len(frame), "classes": frame["wnid"].nunique()}
    return [
        Finding(
            True,
            f"found {found[kind]} {kind}, expected {number} {source[kind]}; complete the set, or "
            f"say in "
            f"datasets.{name}.{kind} how many it has",
        )
        for kind, number in expected.items()
        if found[kind] != number
    ]


def _named(frame: pd.DataFrame, classes: list[str]) -> pd.Series:
    """[files] the class that the file's own name carries, where it is another than the folder's."""
    said = frame["path"].str.rpartition("/")[2].str.extract(OWN_CLASS, expand=False)
    return said.where(said.isin(classes) & (said != frame["wnid"]))


def _faults(frame: pd.DataFrame) -> pd.Series:
    return frame["problem"].where(~frame["problem"].isin(HARMLESS))
