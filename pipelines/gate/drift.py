"""Changes since the last judged candidate: images, classes, class mix, image features, params and
code.
"""

import filecmp
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.flatten import flatten
from densecl.config.params import Params
from densecl.config.titles import show_title
from densecl.datasets.storage.manifest import read_manifest, select_usable
from densecl.errors import DataError
from densecl.runtime import source_hash
from densecl.training.fingerprint import TRAINING_CODE
from pipelines.gate.change_text import MAX_SHOWN
from pipelines.gate.profile import FEATURES, build_dataset_profile, measure_shift
from pipelines.schemas import ClassShare, DatasetDrift, SourceChanges

EVALUATION_CODE = (
    "datasets/storage",
    "datasets/imagenet.py",
    "network",
    "evaluation",
    "metrics.py",
)  # of the package


def compute_changes(params: Params, root: Path = Path()) -> SourceChanges:
    """Compare each dataset's manifest, and the candidate's params and code, with the baseline.

    Files are counted as new, removed or changed (another content or class under the same path)
    whether they can be used or not; `images`, class mix and PSI are of those that can.
    """
    made_of = _collect_candidate_config(params)
    return SourceChanges(
        sets=tuple(
            _compare_dataset(root, name).model_copy(update={"title": show_title(dataset.title, "")})
            for name, dataset in params.datasets.items()
        ),
        params=tuple(_describe_param_changes(root, made_of)),
        made_of=made_of,
    )


def write_baseline(
    params: Params, changes: SourceChanges, folder: Path, root: Path = Path()
) -> None:
    """Copy the current manifests to the baseline, with the params and code that `changes` saw
    before training: what changes during training counts as new.
    """
    for name in params.datasets:
        shutil.copyfile(root / paths.manifest_file(name), folder / paths.baseline_file(name).name)
    plan = json.dumps(changes.made_of, indent=1, sort_keys=True) + "\n"
    write_text(folder / paths.BASELINE_PLAN.name, plan)


def _compare_dataset(root: Path, name: str) -> DatasetDrift:
    path, baseline_path = root / paths.manifest_file(name), root / paths.baseline_file(name)
    now = read_manifest(path)
    usable_now, has_baseline = select_usable(now), baseline_path.exists()
    if has_baseline and filecmp.cmp(path, baseline_path, shallow=False):
        return DatasetDrift(
            dataset=name,
            images=len(usable_now),
            before=len(usable_now),
            new=0,
            removed=0,
            changed=0,
            classes_new=(),
            classes_removed=(),
            psi=dict.fromkeys(FEATURES, 0.0),
            evidence=(),
        )
    before = _read_baseline(baseline_path) if has_baseline else now.iloc[:0]
    usable_before = select_usable(before)
    files = _compare_files(before, now)
    shift = measure_shift(name, build_dataset_profile(usable_before), usable_now)
    return DatasetDrift(
        **shift.model_dump(exclude={"before"}),
        before=len(usable_before) if has_baseline else None,
        new=len(files["new"]),
        removed=len(files["removed"]),
        changed=len(files["changed"]),
        relabelled=_count_relabelled(before, now),
        mix=_find_class_shifts(usable_before, usable_now),
        evidence=tuple(path for names in files.values() for path in _sample_evenly(names)),
    )


def _read_baseline(path: Path) -> pd.DataFrame:
    try:
        return read_manifest(path)
    except DataError as error:
        raise DataError(
            f"{str(error).partition('; ')[0]}; remove {paths.BASELINE} to count everything as new"
        ) from None


def _compare_files(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, list[str]]:
    """Sorted paths of files that are new, removed, or have another content or class."""
    columns = ["path", "sha256", "wnid"]
    merged = before[columns].merge(
        now[columns], on="path", how="outer", suffixes=("_then", ""), indicator="where"
    )
    differs = (merged["sha256"] != merged["sha256_then"]) | (merged["wnid"] != merged["wnid_then"])
    masks = {
        "new": merged["where"] == "right_only",
        "removed": merged["where"] == "left_only",
        "changed": (merged["where"] == "both") & differs,
    }
    return {what: sorted(merged["path"][rows]) for what, rows in masks.items()}


def _count_relabelled(before: pd.DataFrame, now: pd.DataFrame) -> int:
    """Files with content that was there before, but never in their class."""
    known = before.loc[before["sha256"] != "", ["sha256", "wnid"]].drop_duplicates()
    same = now.loc[now["sha256"].isin(known["sha256"]), ["sha256", "wnid"]]
    merged = same.merge(known, how="left", on=["sha256", "wnid"], indicator="where")
    return int((merged["where"] == "left_only").sum())


def _sample_evenly(names: list[str]) -> list[str]:
    """Up to MAX_SHOWN sorted names at even steps, so that many classes are shown."""
    return (
        [names[index * len(names) // MAX_SHOWN] for index in range(MAX_SHOWN)]
        if len(names) > MAX_SHOWN
        else names
    )


def _find_class_shifts(before: pd.DataFrame, now: pd.DataFrame) -> tuple[ClassShare, ...]:
    """Classes whose share of the images changed most."""
    if before.empty or now.empty:
        return ()
    counts = pd.concat(
        [frame["wnid"].value_counts() for frame in (before, now)], axis=1, keys=("before", "now")
    )
    counts = counts.fillna(0).astype(int).sort_index()
    shifts = (
        (counts["now"] / len(now) - counts["before"] / len(before))
        .abs()
        .sort_values(ascending=False, kind="stable")
    )
    return tuple(
        ClassShare(wnid=str(w), before=int(counts["before"][w]), now=int(counts["now"][w]))
        for w in shifts.index[shifts > 0][:MAX_SHOWN]
    )


def _collect_candidate_config(params: Params) -> dict[str, Any]:
    """Everything else that determines a candidate and its scores, as plain values; manifests cover
    the images.
    """
    from steps.unit_plans import resolve_plans

    units = {
        name: json.loads(record.model_dump_json(by_alias=True))
        for name, record in resolve_plans(params).items()
    }
    mode, seed = params.candidate
    return {
        "the candidate": {"mode": mode, "seed": seed},
        **{key: value for key, value in units[mode].items() if key != "mode"},
        "validate": units["validate"]["values"],
        "evaluate": {
            name: {key: units[name][key] for key in ("protocol", "preprocess", "classes")}
            for name in params.evaluate.datasets
        },
        "code": {
            "training": source_hash.hash_sources(TRAINING_CODE),
            "evaluation": source_hash.hash_sources(EVALUATION_CODE),
        },
    }


def _describe_param_changes(root: Path, now: Mapping[str, Any]) -> Iterator[str]:
    """One text per changed key; empty without a baseline, since everything is new then."""
    path = root / paths.BASELINE_PLAN
    if not path.exists():
        if any((root / paths.BASELINE).glob("*.parquet")):
            yield "params and code: nothing to compare with"
        return
    try:
        baseline = json.loads(path.read_text(encoding="utf-8"))
        before, current = flatten(baseline), flatten(now)
    except (ValueError, AttributeError):
        raise DataError(
            f"{path}: found no JSON object, expected what the last judged candidate was made of; "
            f"remove {paths.BASELINE} to "
            "count everything as new"
        ) from None
    for key in sorted({*before, *current}):
        old_value, new_value = before.get(key, "nothing"), current.get(key, "nothing")
        if old_value != new_value:
            head, _, rest = key.partition(".")
            yield (
                f"{rest} code changed"
                if head == "code"
                else f"{key}: {_format_value(old_value)} -> {_format_value(new_value)}"
            )


def _format_value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"
