"""Where the page comes from: code, environment, the artifacts' hashes, the machines, and each seed
by itself.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from densecl import paths
from densecl.analysis.dvc_lock import read_lock
from densecl.analysis.results import Comparison
from densecl.artifacts import Cost, ReportPlan, read_json
from densecl.config.params import TRAIN_SET
from densecl.errors import DenseclError
from densecl.report.formatting import Number, Table, modes_of, percent, words

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "pandas",
    "scipy",
    "matplotlib",
    "dvc",
    "mlflow",
    "zenml",
)
CODE = (*paths.CODE, "dvc.yaml", str(paths.PARAMS))  # whose changes the commit would not show
COLUMNS = ("minutes", "images/s", "ms a step", "peak memory, GiB", "hardware")


def code_and_environment(root: Path) -> Table:
    """The commit, and the versions of the environment that wrote the page."""
    lines = [
        ("Commit", commit(root)),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]
    lines += [(name, found) for name in PACKAGES if (found := _version(name))]
    return Table(
        (("", ("what the page was written with",)),),
        tuple((k, "", words(v)) for k, v in lines),
        text=True,
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def commit(root: Path) -> str:
    """The git commit, and which parts of the code differ from it."""
    head = _git(root, "rev-parse", "HEAD")
    if not head:
        return "not known: the folder is no git repository, or git is missing"
    changed = [line[3:] for line in _git(root, "status", "--porcelain", "--", *CODE).splitlines()]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return head + (
        f", with uncommitted changes in {', '.join(changed[:3])}{more}" if changed else ""
    )


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ("git", *words), cwd=root, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.rstrip() if done.returncode == 0 else ""


def artifacts(plan: ReportPlan, root: Path) -> tuple[Table, str]:
    """DVC's md5 of everything the page was counted from, and why there is none where there is
    none.
    """
    none = Table((("", ()),), ())
    try:
        outs = read_lock(root).outs
    except DenseclError as error:
        return none, str(error)
    if not outs:
        return none, f"No file {paths.LOCK}: the stages did not run under DVC."
    rows = []
    for path in map(str, _paths(plan)):
        found = Number(outs[path], "", str(paths.LOCK)) if outs.get(path) else None
        rows.append((path, "", (found or Number("missing", f"not in {paths.LOCK}", missing=True),)))
    return Table((("", ("md5",)),), tuple(rows)), ""


def _paths(plan: ReportPlan) -> Iterator[Path]:
    yield from (paths.manifest(s) for s in dict.fromkeys((TRAIN_SET, *plan.datasets)))
    runs = [(m, n) for m in plan.modes for n in plan.seeds]
    yield from (paths.model(*run) for run in runs)
    yield from (paths.training(*run) for run in runs)
    for dataset in plan.datasets:
        yield from (paths.predictions(dataset, *run) for run in runs)


def trainings(plan: ReportPlan, root: Path) -> Table:
    """Hardware and times of each training; a training without cost.json says so."""
    rows = []
    for mode in plan.modes:
        for seed in plan.seeds:
            file = paths.training(mode, seed) / "cost.json"
            entries = (
                _of(read_json(Cost, root / file), str(file))
                if (root / file).is_file()
                else _absent(f"no file {file}")
            )
            rows.append((f"{mode}, seed {seed}", "", entries))
    return Table((("", COLUMNS),), tuple(rows))


def _of(cost: Cost, file: str) -> tuple[Number, ...]:
    return words(
        f"{cost.wall_seconds / 60:.1f}",
        f"{cost.images_per_second:,.0f}",
        f"{1000 * cost.step_seconds:.3g}",
        f"{cost.peak_memory_bytes / 2**30:.2f}",
        cost.device,
        source=file,
    )


def _absent(why: str) -> tuple[Number, ...]:
    return tuple(Number("missing", why, missing=True) for _ in COLUMNS)


def seeds_apart(found: Comparison) -> Table:
    """Top-1 of every model, a column a seed; what is missing says why."""
    modes, seeds = modes_of(found), found.plan.seeds
    rows = []
    for dataset in found.plan.datasets:
        rows.append(
            (dataset, "", tuple(_of_seed(found, dataset, m, s) for m in modes for s in seeds))
        )
    return Table(
        tuple((f"{m}, top-1 in %", tuple(f"seed {s}" for s in seeds)) for m in modes), tuple(rows)
    )


def _of_seed(found: Comparison, dataset: str, mode: str, seed: int) -> Number:
    cell = found.cells[dataset, mode]
    if seed not in cell.records:
        why = next(
            (text for text in cell.missing if text.startswith(f"seed {seed}:")),
            f"seed {seed}: not there",
        )
        return Number("missing", why, missing=True)
    return Number(percent(cell.records[seed].top1), "", str(paths.evaluation(dataset, mode, seed)))


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested params as (dotted key, text)."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _told(value)


def _told(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)
