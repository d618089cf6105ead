"""A `dvc repro` with nothing to do against the same graph of `true`; start-up time per stage."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measure import BenchmarkRow, format_ratio, format_seconds, measure_alternating

ROOT = Path(__file__).parents[1]
STAGES = ("plan", "render", "prepare", "validate", "train", "evaluate", "report")


def run_command(folder: Path, *command: str) -> None:
    result = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=_build_environment(), check=False
    )
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {folder}:\n{result.stdout}{result.stderr}")


def build_finished_project(folder: Path) -> Path:
    """A clone in which the whole pipeline of the tests' small params has run."""
    run_command(folder, "git", "clone", "--quiet", str(ROOT), "done")
    project = folder / "done"
    shutil.copy(ROOT / "tests" / "small.yaml", project / "params.yaml")
    run_command(project, "dvc", "repro", "--quiet")
    return project


def copy_with_true_stages(project: Path) -> Path:
    """The same folder with `true` for every command; what the stages made is there already."""
    copy = project.with_name("true")
    shutil.copytree(project, copy, symlinks=True)
    graph = yaml.safe_load((copy / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in graph["stages"].values():
        stage.get("do", stage)["cmd"] = "true"
    (copy / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    run_command(copy, "dvc", "commit", "--force", "--quiet")
    return copy


def measure_rows(folder: Path, rounds: int = 5) -> list[BenchmarkRow]:
    project = build_finished_project(folder)
    calls = {
        "ours": partial(run_command, project, "dvc", "repro", "--quiet"),
        "true": partial(run_command, copy_with_true_stages(project), "dvc", "repro", "--quiet"),
    }
    times = measure_alternating(calls, rounds)
    show_help = partial(run_command, ROOT, sys.executable, "-m", "steps", "--help")
    starts = {
        name: partial(run_command, ROOT, sys.executable, "-c", f"import steps.{name}")
        for name in STAGES
    }
    bare_python = {"python": partial(run_command, ROOT, sys.executable, "-c", "")}
    start_times = measure_alternating({"--help": show_help} | bare_python | starts, rounds)
    return [
        BenchmarkRow(
            "P12",
            "dvc repro with nothing to do / the same graph of `true`",
            format_seconds(times["ours"]),
            format_seconds(times["true"]),
            format_ratio(times["ours"], times["true"]),
            "≤ 1.3 and ≤ 3 s",
        ),
        BenchmarkRow(
            "start",
            "python -m steps --help / python alone",
            format_seconds(start_times["--help"]),
            format_seconds(start_times["python"]),
            format_ratio(start_times["--help"], start_times["python"]),
            "≤ 0.5 s",
        ),
        *(
            BenchmarkRow(
                "start",
                f"importing the stage {name} / python alone",
                format_seconds(start_times[name]),
                format_seconds(start_times["python"]),
                format_ratio(start_times[name], start_times["python"]),
                "-",
            )
            for name in STAGES
        ),
    ]


def _build_environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    return environment | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
