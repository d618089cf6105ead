"""What removed modes, seeds and sets left behind: shown first, then removed. DVC's cache keeps all
that it held.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.params import MODES, Params, load_params
from pipelines.stages import champion_stages

if TYPE_CHECKING:
    from pipelines.stages.dvc_graph import StageGraph

FOLDERS = (
    paths.RENDERED,
    paths.MANIFESTS,
    Path("models"),
    paths.TRAINING,
    paths.PREDICTIONS,
    paths.EVALUATION,
    paths.CHAMPION_REPORTS,
)
RUN = rf"({'|'.join((*MODES, paths.CHAMPION))})-\d+"
# What a stage of ours writes in each; only what dvc.lock names is taken from data/rendered, where
# users may lay sets too.
OURS = {
    paths.MANIFESTS: r"[^/]+\.parquet",
    Path("models"): rf"({'|'.join(MODES)})/seed-\d+",
    paths.TRAINING: RUN,
    paths.EVALUATION: rf"[^/]+/{RUN}\.json",
    paths.PREDICTIONS: rf"[^/]+/{RUN}(\.control)?\.parquet",
    paths.CHAMPION_REPORTS: rf"evaluation/[^/]+/{RUN}\.json|predictions/[^/]+/{RUN}(\.control)?\.parquet",
}
CACHES = {
    paths.CHECKPOINTS: "trainings that were interrupted go on from them",
    paths.ARCHIVES: "made again when needed",
}


@dataclass(frozen=True)
class Leftovers:
    """Paths relative to the project, and names of stages by the lock file that still holds them."""

    paths: tuple[Path, ...]
    entries: dict[Path, tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.paths or any(self.entries.values()))


def main(yes: bool) -> None:
    """List what is left behind; remove it with `yes`, or where someone at a terminal says so."""
    from pipelines.runtime.project_lock import lock_project
    from pipelines.stages.dvc_graph import StageGraph

    params = load_params(paths.PARAMS)
    with lock_project():
        graph = StageGraph()
        found = leftovers(graph, params)
        _show(found)
        if not found:
            return
        if not yes and not _agreed():
            print("nothing is removed; `python -m pipelines prune --yes` removes what is listed")
            return
        with graph.repo.lock:
            remove(found, params)
        print(
            "removed. DVC's cache holds it still: `dvc gc --workspace` empties it of all but this "
            "state; with --all-commits, or "
            "--all-tags, of what no commit, or tag, names"
        )


def leftovers(graph: StageGraph, params: Params) -> Leftovers:
    """What is in our folders and no stage writes, and entries of the lock files without a stage."""
    stages = {
        graph.file: set(graph.stages),
        champion_stages.STAGES_FILE: set(params.evaluate.datasets),
    }
    entries, told = {}, set()
    for file, names in stages.items():
        held = _entries(file.with_suffix(".lock"))
        entries[file.with_suffix(".lock")] = tuple(name for name in held if name not in names)
        told |= {
            out["path"] for name in held if name not in names for out in held[name].get("outs", ())
        }
    found = {Path(path) for path in told if _inside(path)} | _written()
    kept = _kept(graph, params)
    return Leftovers(tuple(sorted(p for path in found for p in _without(path, kept))), entries)


def _entries(lock: Path) -> dict[str, Any]:
    from dvc.utils.serialize import load_yaml

    return (load_yaml(str(lock)).get("stages") or {}) if lock.exists() else {}


def _kept(graph: StageGraph, params: Params) -> set[Path]:
    """Outs of all stages; the champion's as the params have them, since its dvc.yaml follows only
    at the next retraining.
    """
    root = Path(graph.repo.root_dir)
    outs = {
        Path(out.fs_path)
        for stage in graph.repo.index.stages
        for out in stage.outs
        if str(stage.path_in_repo) != champion_stages.STAGES_FILE.as_posix()
    }
    inside = {path.relative_to(root) for path in outs if path.is_relative_to(root)}
    cells = (paths.evaluation_file, paths.predictions_file, paths.control_predictions_file)
    return inside | {
        place(name, paths.CHAMPION, champion_stages.SEED)
        for place in cells
        for name in params.evaluate.datasets
    }


def _inside(path: str) -> bool:
    """In one of our folders, also if someone wrote otherwise into a lock file."""
    parts = PurePosixPath(path)
    return ".." not in parts.parts and any(
        parts.is_relative_to(folder) and parts != folder for folder in FOLDERS
    )


def _written() -> set[Path]:
    """What lies in our folders under a name that our stages give."""
    return {
        path
        for folder, pattern in OURS.items()
        if not _linked(folder)
        for path in folder.glob("**/*")
        if re.fullmatch(pattern, path.relative_to(folder).as_posix())
    }


def _without(path: Path, kept: set[Path]) -> list[Path]:
    """`path`, or those of its parts that are not kept; [] where it is kept, is not there, or lies
    behind a link.
    """
    if (
        not os.path.lexists(path)
        or _linked(path.parent)
        or any(path.is_relative_to(k) for k in kept)
    ):
        return []
    if not any(k.is_relative_to(path) for k in kept):
        return [path]
    return [
        p
        for each in sorted(path.iterdir())
        if each.name != ".gitignore"
        for p in _without(each, kept)
    ]


def _linked(path: Path) -> bool:
    return any(p.is_symlink() for p in (path, *path.parents))


def remove(found: Leftovers, params: Params) -> None:
    """Lock entries first: files without an entry are found again, an entry without files would only
    confuse.
    """
    for lock, names in found.entries.items():
        if names:
            _forget(lock, names)
    if champion_stages.STAGES_FILE.exists():
        champion_stages.write_champion_stages(params)
    for path in found.paths:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)  # follows no link
        _tidy(path.parent)


def _forget(lock: Path, names: tuple[str, ...]) -> None:
    """The lock file without these, as DVC itself writes it; no file without any."""
    from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

    data = parse_yaml_for_update(lock.read_text(encoding="utf-8"), str(lock))
    for name in names:
        del data["stages"][name]
    if data["stages"]:
        write_text(lock, dumps_yaml(data))
    else:
        lock.unlink()


def _tidy(folder: Path) -> None:
    """Remove folders that hold no more than DVC's .gitignore, up to ours."""
    while folder not in FOLDERS and {path.name for path in folder.iterdir()} <= {".gitignore"}:
        shutil.rmtree(folder)
        folder = folder.parent


def _agreed() -> bool:
    return sys.stdin.isatty() and input("remove all of this? [y/N] ").strip().lower() in {
        "y",
        "yes",
    }


def _show(found: Leftovers) -> None:
    for path in found.paths:
        print(f"{_size(path):>10}  {path}")
    for lock, names in found.entries.items():
        for name in names:
            print(f"{'entry':>10}  {lock}: {name}")
    if not found:
        print("nothing is left behind")
    for folder, why in CACHES.items():
        if folder.is_dir() and any(folder.iterdir()):
            print(
                f"{_size(folder):>10}  {folder} stays: {why}; `rm -r {folder}` where nothing is "
                f"running"
            )


def _size(path: Path) -> str:
    """Of what lies there, links not followed; DVC may share it with its cache."""
    files = (
        [path]
        if path.is_symlink() or not path.is_dir()
        else [p for p in path.rglob("*") if not p.is_dir()]
    )
    size = float(sum(file.lstat().st_size for file in files))
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
