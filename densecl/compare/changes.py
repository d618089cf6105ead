"""Changes between A and B besides results: params, data, code, models and cost."""

from dataclasses import dataclass
from typing import NamedTuple

from densecl import paths
from densecl.analysis.dvc_lock import DvcLock
from densecl.compare.differences import ExperimentComparison
from densecl.compare.read import Experiment
from densecl.cost.result import ModeCost

ABSENT = "not there"


@dataclass(frozen=True)
class CostChange:
    """Cost of a mode's training step in A and in B."""

    mode: str
    a: ModeCost
    b: ModeCost
    measured: bool  # in both: the control of neither failed
    devices: tuple[str, str]
    is_same_run: bool  # the same measurement


class DataChange(NamedTuple):
    """One dataset: its images in A and in B (None: no manifest), and the differences ("": none)."""

    dataset: str
    images_a: int | None
    images_b: int | None
    difference: str


@dataclass(frozen=True)
class ExperimentChanges:
    params: list[tuple[str, str, str]] | None  # key, A, B; None: not known
    data: list[DataChange]
    code: dict[str, list[str]] | None  # stage -> files that differ; None: not known
    models: dict[str, bool]  # <mode>-<seed> -> the same bytes, where both locks tell
    classes: tuple[int, int, int] | None  # in A, in B, in both; None: the same lists, or not known
    costs: list[CostChange]


def find_changes(
    comparison: ExperimentComparison, locks: tuple[DvcLock, DvcLock]
) -> ExperimentChanges:
    a, b = comparison.a, comparison.b
    lock_a, lock_b = locks
    data = []
    for name in dict.fromkeys([*a.manifests, *b.manifests]):
        in_both = name in lock_a.sources and name in lock_b.sources
        moved = in_both and lock_a.sources[name] != lock_b.sources[name]
        data.append(_compare_images(a, b, name, moved))
    models = {
        f"{mode}-{seed}": paths.model_folder(mode, seed).as_posix()
        for mode, seeds in comparison.seeds.items()
        for seed in seeds
    }
    return ExperimentChanges(
        None if a.params is None or b.params is None else _compare_params(a.params, b.params),
        data,
        _compare_code(lock_a, lock_b) if lock_a.code and lock_b.code else None,
        {
            run: lock_a.outs[path] == lock_b.outs[path]
            for run, path in models.items()
            if path in lock_a.outs and path in lock_b.outs
        },
        None
        if not a.classes or not b.classes or a.classes == b.classes
        else (len(a.classes), len(b.classes), len({*a.classes} & {*b.classes})),
        _compare_costs(comparison),
    )


def _compare_params(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    return [
        (key, a.get(key, ABSENT), b.get(key, ABSENT))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]


def _compare_code(a: DvcLock, b: DvcLock) -> dict[str, list[str]]:
    """Changed code by stage, for stages that both experiments have."""
    changed = {
        stage: sorted(
            path
            for path in {*a.code[stage], *b.code[stage]}
            if a.code[stage].get(path) != b.code[stage].get(path)
        )
        for stage in sorted(a.code.keys() & b.code.keys())
    }
    return {stage: files for stage, files in changed.items() if files}


def _compare_images(a: Experiment, b: Experiment, dataset: str, moved: bool) -> DataChange:
    """Differences between the images; `moved`: both locks name different folders or archives."""
    manifests = [x.manifests.get(dataset) for x in (a, b)]
    first, second = (manifest.rows if manifest else None for manifest in manifests)
    counts = (None if first is None else len(first), None if second is None else len(second))
    if first is None or second is None:
        letters = [letter for letter, n in zip("AB", counts, strict=True) if n is None]
        return DataChange(dataset, *counts, f"no manifest in {' and '.join(letters)}")
    texts = []
    if len({manifest.digest for manifest in manifests if manifest}) > 1:
        common = first.index.intersection(second.index)
        added, removed = second.drop(common), first.drop(common)
        differs = first.loc[common] != second.loc[common]
        kinds = {
            "added": len(added),
            "removed": len(removed),
            "with another content": int(differs["sha256"].sum()),
            "with another class": int(differs["wnid"].sum()),
            "of those added only renamed": int(added["sha256"].isin(removed["sha256"]).sum()),
        }
        texts = [f"{count:,} {kind}" for kind, count in kinds.items() if count]
        texts = texts or ["the same images; other facts of the manifest differ"]
    if moved:
        texts.append("the folder or archive has changed")
    return DataChange(dataset, *counts, ", ".join(texts))


def _compare_costs(comparison: ExperimentComparison) -> list[CostChange]:
    a, b = comparison.a.cost, comparison.b.cost
    if a is None or b is None:
        return []
    measured, devices = a.is_measured and b.is_measured, (a.device, b.device)
    return [
        CostChange(mode, a.modes[mode], b.modes[mode], measured, devices, a == b)
        for mode in comparison.modes
        if mode in a.modes and mode in b.modes
    ]
