"""Where the page comes from: code, environment, the artifacts' hashes, the machines, and each seed
by itself.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import read_lock
from densecl.analysis.results import Comparison
from densecl.artifacts import ReportPlan, TrainingCost, read_json
from densecl.config.params import TRAIN_SET
from densecl.errors import DenseclError
from densecl.pages.formatting import clip_list, format_percent
from densecl.report.formatting import TableCell, TableData, build_text_cells, list_modes
from densecl.runtime.git import run_git

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
CODE_PATHS = (
    *paths.CODE_FOLDERS,
    "dvc.yaml",
    str(paths.PARAMS),
)  # whose changes the commit would not show
COLUMNS = ("minutes", "images/s", "ms a step", "peak memory, GiB", "hardware")


def build_environment_table(root: Path) -> TableData:
    """The commit, and the versions of the environment that wrote the page."""
    lines = [
        ("Commit", describe_commit(root)),
        ("Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
    ]
    lines += [(name, installed) for name in PACKAGES if (installed := _find_version(name))]
    return TableData(
        (("", ("what the page was written with",)),),
        tuple((k, "", build_text_cells(v)) for k, v in lines),
        is_text=True,
    )


def _find_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def describe_commit(root: Path) -> str:
    """The git commit, and which parts of the code differ from it."""
    head = run_git("rev-parse", "HEAD", root=root).strip()
    if not head:
        return "not known: the folder is no git repository, or git is missing"
    changed = [
        line[3:]
        for line in run_git("status", "--porcelain", "--", *CODE_PATHS, root=root).splitlines()
    ]
    return head + (f", with uncommitted changes in {clip_list(changed, 3)}" if changed else "")


def build_artifact_table(plan: ReportPlan, root: Path) -> tuple[TableData, str]:
    """DVC's md5 of everything the page was counted from, and why there is none where there is
    none.
    """
    empty = TableData((("", ()),), ())
    try:
        outs = read_lock(root).outs
    except DenseclError as error:
        return empty, str(error)
    if not outs:
        return empty, f"No file {paths.DVC_LOCK}: the stages did not run under DVC."
    rows = []
    for path in map(str, _iter_artifact_paths(plan)):
        cell = TableCell(outs[path], "", str(paths.DVC_LOCK)) if outs.get(path) else None
        rows.append(
            (path, "", (cell or TableCell("missing", f"not in {paths.DVC_LOCK}", missing=True),))
        )
    return TableData((("", ("md5",)),), tuple(rows)), ""


def _iter_artifact_paths(plan: ReportPlan) -> Iterator[Path]:
    yield from (paths.manifest_file(s) for s in dict.fromkeys((TRAIN_SET, *plan.datasets)))
    runs = [(m, n) for m in plan.modes for n in plan.seeds]
    yield from (paths.model_folder(*run) for run in runs)
    yield from (paths.training_folder(*run) for run in runs)
    for dataset in plan.datasets:
        yield from (paths.predictions_file(dataset, *run) for run in runs)


def build_training_table(plan: ReportPlan, root: Path) -> TableData:
    """Hardware and times of each training; a training without cost.json says so."""
    rows = []
    for mode in plan.modes:
        for seed in plan.seeds:
            file = paths.training_folder(mode, seed) / "cost.json"
            entries = (
                _build_cost_cells(read_json(TrainingCost, root / file), str(file))
                if (root / file).is_file()
                else _build_missing_cells(f"no file {file}")
            )
            rows.append((f"{mode}, seed {seed}", "", entries))
    return TableData((("", COLUMNS),), tuple(rows))


def _build_cost_cells(cost: TrainingCost, file: str) -> tuple[TableCell, ...]:
    return build_text_cells(
        f"{cost.wall_seconds / 60:.1f}",
        f"{cost.images_per_second:,.0f}",
        f"{1000 * cost.step_seconds:.3g}",
        f"{cost.peak_memory_bytes / 2**30:.2f}",
        cost.device,
        source=file,
    )


def _build_missing_cells(reason: str) -> tuple[TableCell, ...]:
    return tuple(TableCell("missing", reason, missing=True) for _ in COLUMNS)


def build_seed_table(comparison: Comparison) -> TableData:
    """Top-1 of every model, one column per seed; missing entries give the reason."""
    modes, seeds = list_modes(comparison), comparison.plan.seeds
    rows = []
    for dataset in comparison.plan.datasets:
        rows.append(
            (
                dataset,
                "",
                tuple(_build_seed_cell(comparison, dataset, m, s) for m in modes for s in seeds),
            )
        )
    return TableData(
        tuple((f"{m}, top-1 in %", tuple(f"seed {s}" for s in seeds)) for m in modes), tuple(rows)
    )


def _build_seed_cell(comparison: Comparison, dataset: str, mode: str, seed: int) -> TableCell:
    cell = comparison.cells[dataset, mode]
    if seed not in cell.records:
        reason = next(
            (text for text in cell.missing if text.startswith(f"seed {seed}:")),
            f"seed {seed}: not there",
        )
        return TableCell("missing", reason, missing=True)
    return TableCell(
        format_percent(cell.records[seed].top1), "", str(paths.evaluation_file(dataset, mode, seed))
    )


def format_value(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)
