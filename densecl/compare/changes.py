"""What differed between A and B besides their answers: params, data, code, models and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from densecl import paths
from densecl.analysis.dvc_lock import DvcLock
from densecl.compare.differences import ExperimentComparison
from densecl.compare.image_contents import ImageDiff, compare_image_contents
from densecl.compare.schemas import CostRecord

ABSENT = "not there"


@dataclass(frozen=True)
class CostChange:
    """Means over the seeds whose trainings both have."""

    mode: str
    seeds: tuple[int, ...]
    a: dict[str, float]
    b: dict[str, float]
    devices: tuple[str, str]
    is_same_run: bool  # the same trainings: nothing was trained again


@dataclass(frozen=True)
class ExperimentChanges:
    params: tuple[tuple[str, str, str], ...] | None  # key, A, B; None: not known
    data: tuple[ImageDiff, ...]
    sources: dict[str, bool]  # set -> its folder or archive is the same, where both locks tell
    code: dict[str, tuple[str, ...]] | None  # stage -> files that differ; None: not known
    models: dict[str, bool]  # <mode>-<seed> -> the same bytes, where both locks tell
    classes: (
        tuple[int, int, int] | None
    )  # that A knows, B knows, both know; None: the same lists, or not known
    costs: tuple[CostChange, ...]


def find_changes(
    comparison: ExperimentComparison, locks: tuple[DvcLock, DvcLock]
) -> ExperimentChanges:
    a, b = comparison.a, comparison.b
    datasets = list(dict.fromkeys([*a.contents.list_datasets(), *b.contents.list_datasets()]))
    lock_a, lock_b = locks
    return ExperimentChanges(
        params=None
        if a.params is None or b.params is None
        else tuple(_compare_params(a.params, b.params)),
        data=tuple(compare_image_contents(a.contents, b.contents, name) for name in datasets),
        sources={
            s: lock_a.sources[s] == lock_b.sources[s]
            for s in datasets
            if s in lock_a.sources and s in lock_b.sources
        },
        code=_compare_code(lock_a, lock_b) if lock_a.code and lock_b.code else None,
        models=_compare_models(comparison, lock_a, lock_b),
        classes=_compare_classes(a.classes, b.classes),
        costs=tuple(
            cost for mode in comparison.modes if (cost := _compare_costs(comparison, mode))
        ),
    )


def _compare_params(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    return [
        (key, a.get(key, ABSENT), b.get(key, ABSENT))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]


def _compare_code(a: DvcLock, b: DvcLock) -> dict[str, tuple[str, ...]]:
    """By stage, where both have the stage."""
    changed_files = {}
    for stage in a.code.keys() & b.code.keys():
        files_a, files_b = a.code[stage], b.code[stage]
        files = [
            path for path in sorted({*files_a, *files_b}) if files_a.get(path) != files_b.get(path)
        ]
        if files:
            changed_files[stage] = tuple(files)
    return dict(sorted(changed_files.items()))


def _compare_models(comparison: ExperimentComparison, a: DvcLock, b: DvcLock) -> dict[str, bool]:
    is_same = {}
    for mode, seeds in comparison.seeds.items():
        for seed in seeds:
            path = paths.model_folder(mode, seed).as_posix()
            if path in a.outs and path in b.outs:
                is_same[f"{mode}-{seed}"] = a.outs[path] == b.outs[path]
    return is_same


def _compare_classes(a: Sequence[str], b: Sequence[str]) -> tuple[int, int, int] | None:
    return (len(a), len(b), len({*a} & {*b})) if a and b and tuple(a) != tuple(b) else None


def _compare_costs(comparison: ExperimentComparison, mode: str) -> CostChange | None:
    cost_pairs = {
        seed: (cost_a, cost_b)
        for seed in comparison.seeds.get(mode, ())
        if (cost_a := comparison.a.costs.get((mode, seed)))
        and (cost_b := comparison.b.costs.get((mode, seed)))
    }
    if not cost_pairs:
        return None
    costs_a, costs_b = ([pair[side] for pair in cost_pairs.values()] for side in (0, 1))
    devices = tuple(", ".join(dict.fromkeys(c.device for c in side)) for side in (costs_a, costs_b))
    return CostChange(
        mode,
        tuple(cost_pairs),
        _compute_means(costs_a),
        _compute_means(costs_b),
        (devices[0], devices[1]),
        costs_a == costs_b,
    )


def _compute_means(costs: Sequence[CostRecord]) -> dict[str, float]:
    """By field, and `against_none`: the step's time divided by that of classification only,
    measured in the same process.
    """
    means = {
        f: fmean(getattr(c, f) for c in costs) for f in CostRecord.model_fields if f != "device"
    }
    return {**means, "against_none": fmean(c.step_seconds / c.none_step_seconds for c in costs)}
