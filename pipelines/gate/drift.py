"""What changed since the last judged candidate: images, classes, their mix and look, params and
code.
"""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import TRAIN_SET, Params
from densecl.datasets.storage.filenames import shown
from densecl.datasets.storage.manifest import read_manifest, usable
from densecl.errors import DataError
from densecl.training import fingerprint
from pipelines.formatting import counted
from pipelines.gate.psi import LARGE, MODERATE, Binned, binned, chance, psi
from pipelines.schemas import Changes, SetChange, Share

FEATURES = ("class", "brightness", "contrast", "width", "height", "bytes")
EVALUATION_CODE = (
    "datasets/storage",
    "datasets/imagenet.py",
    "network",
    "evaluation",
    "metrics.py",
)  # of the package
EVALUATION_ONLY = (
    "evaluate.",
    "evaluation code",
)  # heads of the lines about params and code that train nothing anew
SHOWN = 12  # paths and classes a set


def changes(params: Params, root: Path = Path()) -> Changes:
    """Each set's manifest against the baseline's, and the candidate's params and code against the
    baseline's.

    Files are counted as new, removed or changed (another content or class under the same path)
    whether they can be used or not; `images`, class mix and PSI are of those that can.
    """
    made_of = _made_of(params)
    return Changes(
        sets=tuple(_set(root, name) for name in params.datasets),
        params=tuple(_differences(root, made_of)),
        made_of=made_of,
    )


def remember(
    params: Params, seen: Changes, root: Path = Path(), place: Path = paths.BASELINE
) -> None:
    """From now on changes are told from the manifests as they are, and from the params and code
    that were seen before the training: what changed in the days that it took makes a candidate of
    its own. The baseline holds copies.
    """
    place = root / place
    place.mkdir(parents=True, exist_ok=True)
    kept = {paths.baseline(name).name for name in params.datasets}
    for old in place.iterdir():
        if old.name not in kept and old.suffix == ".parquet":
            old.unlink()
    for name in params.datasets:
        copy = place / paths.baseline(name).name
        partial = copy.with_name(copy.name + ".partial")
        shutil.copyfile(root / paths.manifest(name), partial)
        partial.replace(copy)
    write_text(
        place / paths.BASELINE_PLAN.name, json.dumps(seen.made_of, indent=1, sort_keys=True) + "\n"
    )


def _set(root: Path, name: str) -> SetChange:
    path, earlier = root / paths.manifest(name), root / paths.baseline(name)
    now = read_manifest(path)
    today, known = usable(now), earlier.exists()
    if known and filecmp.cmp(path, earlier, shallow=False):
        return SetChange(
            dataset=name,
            images=len(today),
            before=len(today),
            new=0,
            removed=0,
            changed=0,
            classes_new=(),
            classes_removed=(),
            psi=dict.fromkeys(FEATURES, 0.0),
            evidence=(),
        )
    before = _earlier(earlier) if known else now.iloc[:0]
    then = usable(before)
    files = _files(before, now)
    counts = _binned(then, today)
    return SetChange(
        dataset=name,
        images=len(today),
        before=len(then) if known else None,
        **{what: len(names) for what, names in files.items()},
        classes_new=_absent_classes(today, then),
        classes_removed=_absent_classes(then, today),
        psi={feature: psi(each) for feature, each in counts.items()},
        chance={feature: chance(each) for feature, each in counts.items()},
        mix=_mix(then, today),
        evidence=tuple(path for names in files.values() for path in _spread(names)),
    )


def _earlier(path: Path) -> pd.DataFrame:
    try:
        return read_manifest(path)
    except DataError as error:
        raise DataError(
            f"{str(error).partition('; ')[0]}; remove {paths.BASELINE} to count everything as new"
        ) from None


def _files(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, list[str]]:
    """Sorted paths of the files that are new, removed, and of another content or class than
    before.
    """
    kept = ["path", "sha256", "wnid"]
    both = before[kept].merge(
        now[kept], on="path", how="outer", suffixes=("_then", ""), indicator="where"
    )
    other = (both["sha256"] != both["sha256_then"]) | (both["wnid"] != both["wnid_then"])
    found = {
        "new": both["where"] == "right_only",
        "removed": both["where"] == "left_only",
        "changed": (both["where"] == "both") & other,
    }
    return {what: sorted(both["path"][rows]) for what, rows in found.items()}


def _spread(names: list[str]) -> list[str]:
    """SHOWN of sorted names, from the first to the last at even steps, so that many classes are
    seen.
    """
    return (
        [names[place * len(names) // SHOWN] for place in range(SHOWN)]
        if len(names) > SHOWN
        else names
    )


def _absent_classes(frame: pd.DataFrame, other: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(set(frame["wnid"].unique()) - set(other["wnid"].unique())))


def _binned(before: pd.DataFrame, now: pd.DataFrame) -> dict[str, Binned]:
    """Images a bin of each feature; of none where one side has no images."""
    if before.empty or now.empty:
        return {}
    columns = {feature: "wnid" if feature == "class" else feature for feature in FEATURES}
    return {f: binned(before[c].dropna(), now[c].dropna()) for f, c in columns.items()}


def _mix(before: pd.DataFrame, now: pd.DataFrame) -> tuple[Share, ...]:
    """The classes whose share of the images moved most."""
    if before.empty or now.empty:
        return ()
    found = pd.concat(
        [frame["wnid"].value_counts() for frame in (before, now)], axis=1, keys=("before", "now")
    )
    found = found.fillna(0).astype(int).sort_index()
    moved = (
        (found["now"] / len(now) - found["before"] / len(before))
        .abs()
        .sort_values(ascending=False, kind="stable")
    )
    return tuple(
        Share(wnid=str(w), before=int(found["before"][w]), now=int(found["now"][w]))
        for w in moved.index[moved > 0][:SHOWN]
    )


def _made_of(params: Params) -> dict[str, Any]:
    """What else makes a candidate and its scores, as plain values: images apart, which the
    manifests tell.
    """
    from steps.plan import resolve

    units = {
        name: json.loads(record.model_dump_json(by_alias=True))
        for name, record in resolve(params).items()
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
        "code": {"training": fingerprint.code(), "evaluation": fingerprint.code(EVALUATION_CODE)},
    }


def _differences(root: Path, now: Mapping[str, Any]) -> Iterator[str]:
    """In words, one a key; none where there is no baseline at all: then everything is new."""
    path = root / paths.BASELINE_PLAN
    if not path.exists():
        if any((root / paths.BASELINE).glob("*.parquet")):
            yield "params and code: nothing to compare with"
        return
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        before, today = dict(_flat(kept)), dict(_flat(now))
    except (ValueError, AttributeError):
        raise DataError(
            f"{path}: found no JSON object, expected what the last judged candidate was made of; "
            f"remove {paths.BASELINE} to "
            "count everything as new"
        ) from None
    for key in sorted({*before, *today}):
        then, value = before.get(key, "nothing"), today.get(key, "nothing")
        if then != value:
            head, _, rest = key.partition(".")
            yield (
                f"{rest} code changed"
                if head == "code"
                else f"{key}: {_short(then)} -> {_short(value)}"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def told(found: Changes) -> str:
    """The changes as text for a terminal: a line a set, then params and code, then what follows
    from it.
    """
    return "\n".join(
        [
            *(line for each in found.sets for line in _told_set(each)),
            *found.params,
            "",
            consequence(found),
        ]
    )


def consequence(found: Changes) -> str:
    """What the changes mean for the next candidate, in a sentence."""
    if not found.any:
        return (
            "Nothing changed since the last judged candidate: none is "
            "trained (--force trains one all the same)."
        )
    if all(each.before is None for each in found.sets):
        return (
            "There is no earlier candidate to compare with: "
            "everything is new, and a candidate is judged."
        )
    train = next(each for each in found.sets if each.dataset == TRAIN_SET)
    if touched(train) or any(not line.startswith(EVALUATION_ONLY) for line in found.params):
        return "A new candidate is trained and judged."
    return (
        "Only the evaluation changed: the same model is the "
        "candidate, and it and the champion are judged anew."
    )


def touched(change: SetChange) -> bool:
    return change.before is None or bool(change.new or change.removed or change.changed)


def size_of_shift(change: SetChange, feature: str) -> str:
    """`large`, `moderate` or nothing: by convention, and only above what chance explains."""
    value = change.psi.get(feature, 0.0)
    if value <= change.chance.get(feature, 0.0):
        return ""
    return "large" if value >= LARGE else "moderate" if value >= MODERATE else ""


def _told_set(change: SetChange) -> Iterator[str]:
    images = counted(change.images, "image")
    if not touched(change):
        yield f"{change.dataset}: unchanged, {images}"
        return
    if change.before is None:
        yield f"{change.dataset}: {images}, nothing to compare with"
        return
    yield (
        f"{change.dataset}: {images}, {change.before:,} before: {change.new:,} new, "
        f"{change.removed:,} removed, "
        f"{change.changed:,} changed"
    )
    for what, wnids in (("new", change.classes_new), ("removed", change.classes_removed)):
        if wnids:
            more = f" and {len(wnids) - SHOWN} more" if len(wnids) > SHOWN else ""
            yield f"  classes {what}: {', '.join(wnids[:SHOWN])}{more}"
    shifts = [
        f"{f} {v:.2f}{f' ({word})' if (word := size_of_shift(change, f)) else ''}"
        for f, v in change.psi.items()
    ]
    yield "  PSI: " + (", ".join(shifts) or "no images to compare")
    if change.evidence:
        yield "  such as " + ", ".join(shown(path) for path in change.evidence[:3])
