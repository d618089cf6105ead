"""Stages side by side: a whole run against the code before them, and two trainings."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import yaml

from benchmarks.measure import BenchmarkRow, Call, Times, make_time_row
from benchmarks.pipeline import ROOT, run_command

OLD_COMMIT = "cb4fca0"  # one stage at a time, and one process per evaluated dataset
PARAMS = "tests/small.yaml"  # as of the old commit, so that both do the same
REMOVED_KEYS = (("report", "bootstrap_samples"),)  # of its params, since then
MODES = ("none", "global")
ROUNDS = 2


def measure_engine(folder: Path) -> list[BenchmarkRow]:
    """P14 and P17."""
    return [*measure_whole_run(folder), measure_two_trainings(folder)]


def measure_whole_run(folder: Path) -> list[BenchmarkRow]:
    """One seed of the same params, from the drawing to the table."""
    measure = "one seed of the same params: stages side by side / the code before"
    params = subprocess.run(
        ["git", "show", f"{OLD_COMMIT}:{PARAMS}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if params.returncode:
        missing = f"no commit {OLD_COMMIT} in this clone"
        return [BenchmarkRow("P14", measure, missing, missing, "-", "≤ 0.55")]
    commands = {"ours": [sys.executable, "-m", "pipelines", "run"], "old": ["dvc", "repro"]}
    # The same values for both, but for the keys that this code does not know.
    current = yaml.safe_load(params.stdout)
    for section, key in REMOVED_KEYS:
        del current[section][key]
    current["cost"] = {"seconds": 2}  # the old code measured no cost alone
    sides = {
        "ours": ("HEAD", yaml.safe_dump(current, sort_keys=False)),
        "old": (OLD_COMMIT, params.stdout),
    }
    calls: dict[str, list[Call]] = {
        name: [
            partial(
                run_command,
                clone_project(folder / f"{name}-{number}", *sides[name]),
                *command,
            )
            for number in range(ROUNDS)
        ]
        for name, command in commands.items()
    }
    return [make_time_row("P14", measure, measure_in_turn(calls), "ours", "old", "≤ 0.55")]


def measure_in_turn(calls: Mapping[str, Sequence[Call]]) -> Times:
    """Seconds of each call, A B A B; all count, since each starts its own processes."""
    times: Times = {name: [] for name in calls}
    for row in zip(*calls.values(), strict=True):
        for name, call in zip(calls, row, strict=True):
            start = perf_counter()
            call()
            times[name].append(perf_counter() - start)
    return times


def clone_project(place: Path, revision: str, params: str) -> Path:
    """A clone in which nothing has run."""
    run_command(ROOT, "git", "clone", "--quiet", str(ROOT), str(place))
    run_command(place, "git", "checkout", "--quiet", revision)
    (place / "params.yaml").write_text(params, encoding="utf-8")
    return place


def measure_two_trainings(folder: Path) -> BenchmarkRow:
    """Two trainings at once with one thread each, and in turn with two threads."""
    calls: dict[str, list[Call]] = {}
    for threads, loaders in ((1, 0), (2, 2)):  # as `--jobs 2` and `--jobs 1` have them
        text = (ROOT / PARAMS).read_text(encoding="utf-8")
        params = yaml.safe_load(text)
        params["modes"] = list(MODES)
        params["train"] |= {"threads": threads, "epochs": 6}
        project = clone_project(folder / f"threads-{threads}", "HEAD", yaml.safe_dump(params))
        run_command(project, "dvc", "repro", "--quiet", "validate")
        environment = os.environ | {"DENSECL_WORKERS": str(loaders)}
        modes = [MODES] if threads == 1 else [[mode] for mode in MODES]
        calls[str(threads)] = [partial(train_models, project, environment, modes)] * ROUNDS
    times = measure_in_turn(calls)
    measure = "two trainings: side by side, one thread each / in turn, two threads"
    return make_time_row("P17", measure, times, "1", "2", "decides `--jobs`")


def train_models(
    project: Path, environment: Mapping[str, str], groups: Sequence[Sequence[str]]
) -> None:
    """Train the modes of one group at once, and one group after another."""
    for folder in ("models", "checkpoints"):
        shutil.rmtree(project / folder, ignore_errors=True)
    for modes in groups:
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "steps", "train", mode, "0"],
                cwd=project,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for mode in modes
        ]
        statuses = [process.wait() for process in running]
        if any(statuses):
            raise SystemExit(f"{project}: a training failed")
