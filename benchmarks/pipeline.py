"""A `dvc repro` with nothing to do, beside the same graph of `true`; and how long each stage takes
to start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import yaml

from benchmarks.measure import Row, alternate, ratio, shown

ROOT = Path(__file__).parents[1]
STAGES = ("plan", "render", "prepare", "validate", "train", "evaluate", "report")


def run(place: Path, *command: str) -> None:
    done = subprocess.run(
        command, cwd=place, capture_output=True, text=True, env=_environment(), check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed in {place}:\n{done.stdout}{done.stderr}")


def finished(place: Path) -> Path:
    """A clone in which the whole pipeline of the tests' small params has run."""
    run(place, "git", "clone", "--quiet", str(ROOT), "done")
    done = place / "done"
    shutil.copy(ROOT / "tests" / "small.yaml", done / "params.yaml")
    run(done, "dvc", "repro", "--quiet")
    return done


def of_true(done: Path) -> Path:
    """The same folder with `true` for every command; what the stages made is there already."""
    copy = done.with_name("true")
    shutil.copytree(done, copy, symlinks=True)
    graph = yaml.safe_load((copy / "dvc.yaml").read_text(encoding="utf-8"))
    for stage in graph["stages"].values():
        stage.get("do", stage)["cmd"] = "true"
    (copy / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False), encoding="utf-8")
    run(copy, "dvc", "commit", "--force", "--quiet")
    return copy


def rows(place: Path, rounds: int = 5) -> list[Row]:
    done = finished(place)
    kinds = {
        "ours": partial(run, done, "dvc", "repro", "--quiet"),
        "true": partial(run, of_true(done), "dvc", "repro", "--quiet"),
    }
    times = alternate(kinds, rounds)
    answer = partial(run, ROOT, sys.executable, "-m", "steps", "--help")
    starts = {
        name: partial(run, ROOT, sys.executable, "-c", f"import steps.{name}") for name in STAGES
    }
    nothing = {"python": partial(run, ROOT, sys.executable, "-c", "")}
    began = alternate({"--help": answer} | nothing | starts, rounds)
    return [
        Row(
            "P12",
            "dvc repro with nothing to do / the same graph of `true`",
            shown(times["ours"]),
            shown(times["true"]),
            ratio(times["ours"], times["true"]),
            "≤ 1.3 and ≤ 3 s",
        ),
        Row(
            "start",
            "python -m steps --help / python alone",
            shown(began["--help"]),
            shown(began["python"]),
            ratio(began["--help"], began["python"]),
            "≤ 0.5 s",
        ),
        *(
            Row(
                "start",
                f"importing the stage {name} / python alone",
                shown(began[name]),
                shown(began["python"]),
                ratio(began[name], began["python"]),
                "-",
            )
            for name in STAGES
        ),
    ]


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
