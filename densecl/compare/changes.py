"""What differed between A and B besides their answers: params, data, code, models and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from densecl import paths
from densecl.analysis.dvc_lock import Lock
from densecl.compare.differences import Versus
from densecl.compare.image_contents import SetChange, set_change
from densecl.compare.schemas import Cost

ABSENT = "not there"


@dataclass(frozen=True)
class Costs:
    """Means over the seeds whose trainings both have."""

    mode: str
    seeds: tuple[int, ...]
    a: dict[str, float]
    b: dict[str, float]
    devices: tuple[str, str]
    same: bool  # the same trainings: nothing was trained again


@dataclass(frozen=True)
class Changes:
    params: tuple[tuple[str, str, str], ...] | None  # key, A, B; None: not known
    data: tuple[SetChange, ...]
    sources: dict[str, bool]  # set -> its folder or archive is the same, where both locks tell
    code: dict[str, tuple[str, ...]] | None  # stage -> files that differ; None: not known
    models: dict[str, bool]  # <mode>-<seed> -> the same bytes, where both locks tell
    classes: (
        tuple[int, int, int] | None
    )  # that A knows, B knows, both know; None: the same lists, or not known
    costs: tuple[Costs, ...]


def changes(found: Versus, locks: tuple[Lock, Lock]) -> Changes:
    a, b = found.a, found.b
    sets = list(dict.fromkeys([*a.contents.sets(), *b.contents.sets()]))
    mine, theirs = locks
    return Changes(
        params=None if a.params is None or b.params is None else tuple(_keys(a.params, b.params)),
        data=tuple(set_change(a.contents, b.contents, name) for name in sets),
        sources={
            s: mine.sources[s] == theirs.sources[s]
            for s in sets
            if s in mine.sources and s in theirs.sources
        },
        code=_code(mine, theirs) if mine.code and theirs.code else None,
        models=_models(found, mine, theirs),
        classes=_classes(a.classes, b.classes),
        costs=tuple(cost for mode in found.modes if (cost := _costs(found, mode))),
    )


def _keys(a: dict[str, str], b: dict[str, str]) -> list[tuple[str, str, str]]:
    return [
        (key, a.get(key, ABSENT), b.get(key, ABSENT))
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]


def _code(a: Lock, b: Lock) -> dict[str, tuple[str, ...]]:
    """By stage, where both have the stage."""
    found = {}
    for stage in a.code.keys() & b.code.keys():
        mine, theirs = a.code[stage], b.code[stage]
        files = [path for path in sorted({*mine, *theirs}) if mine.get(path) != theirs.get(path)]
        if files:
            found[stage] = tuple(files)
    return dict(sorted(found.items()))


def _models(found: Versus, a: Lock, b: Lock) -> dict[str, bool]:
    same = {}
    for mode, seeds in found.seeds.items():
        for seed in seeds:
            path = paths.model(mode, seed).as_posix()
            if path in a.outs and path in b.outs:
                same[f"{mode}-{seed}"] = a.outs[path] == b.outs[path]
    return same


def _classes(a: Sequence[str], b: Sequence[str]) -> tuple[int, int, int] | None:
    return (len(a), len(b), len({*a} & {*b})) if a and b and tuple(a) != tuple(b) else None


def _costs(found: Versus, mode: str) -> Costs | None:
    both = {
        seed: (one, two)
        for seed in found.seeds.get(mode, ())
        if (one := found.a.costs.get((mode, seed))) and (two := found.b.costs.get((mode, seed)))
    }
    if not both:
        return None
    mine, theirs = ([pair[side] for pair in both.values()] for side in (0, 1))
    devices = tuple(", ".join(dict.fromkeys(c.device for c in side)) for side in (mine, theirs))
    return Costs(
        mode, tuple(both), _means(mine), _means(theirs), (devices[0], devices[1]), mine == theirs
    )


def _means(costs: Sequence[Cost]) -> dict[str, float]:
    """By field, and `against_none`: the step's time divided by that of classification only,
    measured in the same process.
    """
    means = {f: fmean(getattr(c, f) for c in costs) for f in Cost.model_fields if f != "device"}
    return {**means, "against_none": fmean(c.step_seconds / c.none_step_seconds for c in costs)}
