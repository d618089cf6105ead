"""A `dvc repro` with nothing to do against the same graph of `true`; start-up time per stage."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measure import BenchmarkRow, make_time_row, measure_alternating

ROOT = Path(__file__).parents[1]
STAGES = ("plan", "render", "prepare", "validate", "train", "evaluate", "report")


def run_command(folder: Path, *command: str) -> None:
    """Run a program of the environment in `folder`; SystemExit with its output if it fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # it doubles the start-up time
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {folder}:\n{result.stdout}{result.stderr}")


def build_finished_project(folder: Path) -> Path:
    """A clone in which the whole pipeline has run with the small params of the tests."""
    run_command(folder, "git", "clone", "--quiet", str(ROOT), "done")
    project = folder / "done"
    shutil.copy(ROOT / "tests" / "small.yaml", project / "params.yaml")
    run_command(project, "dvc", "repro", "--quiet")
    return project


def copy_with_true_stages(project: Path) -> Path:
    """The same folder with `true` as every command; the stages' outputs exist already."""
    copy = project.with_name("true")
    shutil.copytree(project, copy, symlinks=True)
    graph = yaml.safe_load((copy / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in graph["stages"].values():
        stage.get("do", stage)["cmd"] = "true"
    (copy / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    run_command(copy, "dvc", "commit", "--force", "--quiet")
    return copy


def measure_pipeline(folder: Path, rounds: int = 5) -> list[BenchmarkRow]:
    """`dvc repro`, `--help`, and the import of each stage."""
    project = build_finished_project(folder)
    projects = {"ours": project, "true": copy_with_true_stages(project)}
    calls = {
        name: partial(run_command, path, "dvc", "repro", "--quiet")
        for name, path in projects.items()
    }
    idle = "dvc repro with nothing to do / the same graph of `true`"
    times = measure_alternating(calls, rounds)
    rows = [make_time_row("P12", idle, times, "ours", "true", "≤ 1.3 and ≤ 3 s")]
    arguments = {"python": ["-c", ""], "python -m steps --help": ["-m", "steps", "--help"]}
    arguments |= {f"importing the stage {name}": ["-c", f"import steps.{name}"] for name in STAGES}
    starts = {
        name: partial(run_command, ROOT, sys.executable, *options)
        for name, options in arguments.items()
    }
    times = measure_alternating(starts, rounds)
    del starts["python"]
    return rows + [
        make_time_row(
            "start",
            f"{name} / python alone",
            times,
            name,
            "python",
            "≤ 0.5 s" if name.endswith("--help") else "-",
        )
        for name in starts
    ]
