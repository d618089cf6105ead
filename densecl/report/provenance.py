"""Provenance of the page: code, environment, artifact hashes, machines, and the results of each
seed.
"""

import itertools
import platform
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from densecl import paths
from densecl.analysis.dvc_lock import read_lock
from densecl.analysis.results import Comparison
from densecl.artifacts import ReportPlan
from densecl.config.flatten import flatten
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


def build_environment_table(root: Path) -> TableData:
    """The commit, and the versions of the environment that wrote the page."""
    lines = {
        "Commit": describe_commit(root),
        "Python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
    }
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            lines[name] = version(name)
    rows = tuple((name, "", build_text_cells(text)) for name, text in lines.items())
    return TableData((("", ("what the page was written with",)),), rows, is_text=True)


def describe_commit(root: Path) -> str:
    """The git commit, and the parts of the code that differ from it."""
    head = run_git("rev-parse", "HEAD", root=root).strip()
    if not head:
        return "not known: the folder is no git repository, or git is missing"
    changed = [
        line[3:]
        for line in run_git("status", "--porcelain", "--", *CODE_PATHS, root=root).splitlines()
    ]
    return head + (f", with uncommitted changes in {clip_list(changed, 3)}" if changed else "")


def build_artifact_table(plan: ReportPlan, root: Path) -> tuple[TableData, str]:
    """DVC's md5 of every input of the page, or the reason why there is none."""
    empty = TableData((("", ()),), ())
    try:
        outs = read_lock(root).outs
    except DenseclError as error:
        return empty, str(error)
    if not outs:
        return empty, f"No file {paths.DVC_LOCK}: the stages did not run under DVC."
    runs = list(itertools.product(plan.modes, plan.seeds))
    artifacts = (
        *(paths.manifest_file(s) for s in dict.fromkeys((TRAIN_SET, *plan.datasets))),
        *(paths.model_folder(*run) for run in runs),
        *(paths.training_folder(*run) for run in runs),
        *(paths.predictions_folder(*run) for run in runs),
        *(paths.evaluation_folder(*run) for run in runs),
    )
    missing = TableCell("missing", f"not in {paths.DVC_LOCK}", missing=True)
    rows = tuple(
        (path, "", (TableCell(outs[path], "", str(paths.DVC_LOCK)) if path in outs else missing,))
        for path in map(str, artifacts)
    )
    return TableData((("", ("md5",)),), rows), ""


def build_seed_table(comparison: Comparison) -> TableData:
    """Top-1 of every model, one column per seed; missing entries give the reason."""
    modes, seeds = list_modes(comparison), comparison.plan.seeds
    rows = tuple(
        (title, "", tuple(_build_seed_cell(comparison, s, m, n) for m in modes for n in seeds))
        for s, title in comparison.plan.titles.items()
    )
    return TableData(
        tuple((f"{m}, top-1 in %", tuple(f"seed {s}" for s in seeds)) for m in modes), rows
    )


def _build_seed_cell(comparison: Comparison, dataset: str, mode: str, seed: int) -> TableCell:
    cell = comparison.cells[dataset, mode]
    if seed not in cell.records:
        reason = next(text for text in cell.missing if text.startswith(f"seed {seed}:"))
        return TableCell("missing", reason, missing=True)
    file = str(paths.evaluation_file(dataset, mode, seed))
    return TableCell(format_percent(cell.records[seed].top1), "", file)


def build_params_table(plan: ReportPlan) -> TableData:
    file = str(paths.plan_file("report"))
    rows = tuple(
        (key, "", build_text_cells(_format_value(value), source=file))
        for key, value in flatten(plan.params).items()
    )
    return TableData((("", ("value",)),), rows, is_text=True)


def _format_value(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "–"
    return "–" if value is None else str(value)
