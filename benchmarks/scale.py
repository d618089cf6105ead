"""What breaks first: graph, report, comparison and tracking of up to 1,000 trainings.

`python -m benchmarks.scale RUN [TRAININGS ...]`: RUN is the folder of a finished default run. Its
cells are copied to more seeds, and the real commands run on them, each in a process of its own.
Trainings of copied seeds are equal, which changes the numbers in the report but not the work.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

from densecl import paths

ROOT = Path(__file__).parents[1]
TRAININGS = (9, 99, 999)
COMMANDS = ("plan", "stages", "report", "compare")
MODES = ("dense", "global", "none")


def copy_run(run: Path, place: Path, trainings: int) -> None:
    """The artifacts of a run with `trainings` trainings, of all modes."""
    place.mkdir()
    for path in (paths.PLANS, paths.MANIFESTS, paths.COST, Path("mlflow.db")):
        copy = shutil.copytree if (run / path).is_dir() else shutil.copy
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        copy(run / path, place / path)
    seeds = range(trainings // len(MODES))
    for mode in MODES:
        sources = len(list((run / paths.TRAINING).glob(f"{mode}-*")))
        for seed in seeds:
            copy_training(run, place, mode, seed % sources, seed)
    write_seeds(place / paths.plan_file("report"), len(seeds))
    params = yaml.safe_load((run / paths.PARAMS).read_text(encoding="utf-8"))
    text = yaml.safe_dump(params | {"seeds": list(seeds)}, sort_keys=False)
    (place / paths.PARAMS).write_text(text, encoding="utf-8")


def copy_training(run: Path, place: Path, mode: str, source: int, seed: int) -> None:
    """The files of one training and its evaluations, as those of another seed."""
    for folder in (paths.PREDICTIONS, paths.EVALUATION, paths.TRAINING):
        shutil.copytree(run / folder / f"{mode}-{source}", place / folder / f"{mode}-{seed}")
    for path in (place / paths.EVALUATION / f"{mode}-{seed}").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8")) | {"seed": seed}
        text = json.dumps(record).replace(f"/{mode}-{source}/", f"/{mode}-{seed}/")
        path.write_text(text, encoding="utf-8")
    model = paths.model_folder(mode, seed)
    (place / model).mkdir(parents=True)
    shutil.copy(run / paths.model_folder(mode, source) / "config.json", place / model)


def write_seeds(plan: Path, seeds: int) -> None:
    record = json.loads(plan.read_text(encoding="utf-8"))
    plan.write_text(json.dumps(record | {"seeds": list(range(seeds))}), encoding="utf-8")


def copy_graph(place: Path) -> None:
    """What DVC needs to list the stages: the graph, the code it depends on, an empty store."""
    for name in ("dvc.yaml", "densecl", "steps"):
        (place / name).symlink_to(ROOT / name)
    for command in (["git", "init", "--quiet"], ["dvc", "init", "--quiet"]):
        subprocess.run(command, cwd=place, check=True)


def measure_command(place: Path, command: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak memory in MiB of a command; SystemExit with its errors if it fails.

    The peak starts at that of this process, which therefore imports little.
    """
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_TRACKING_URI": f"sqlite:///{place}/mlflow.db",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, cwd=place, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)}: status {status}:\n{output.read()[-2000:]}")
    return seconds, usage.ru_maxrss / 1024


def measure_trainings(
    run: Path, folder: Path, trainings: int, names: Sequence[str]
) -> Iterator[str]:
    """Rows of the table for one number of trainings, of the commands `names`."""
    place, python = folder / str(trainings), sys.executable
    copy_run(run, place, trainings)
    commands = {
        "plan": [python, "-m", "steps", "plan"],
        "stages": ["dvc", "stage", "list", "--all"],
        "report": [python, "-m", "steps", "report"],
        "compare": [python, "-m", "steps", "compare", str(place), str(place)],
    }
    for name in names:
        if name == "stages":
            copy_graph(place)
        seconds, memory = measure_command(place, commands[name])
        size = ""
        if name == "report":
            size = f"{(place / paths.REPORT_PAGE).stat().st_size / 2**20:.1f} MiB page"
        yield f"| {trainings:,} | {name} | {seconds:.1f} s | {memory:,.0f} MiB | {size} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a finished default run")
    parser.add_argument("trainings", nargs="*", type=int, default=TRAININGS)
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=COMMANDS)
    args = parser.parse_args()
    print("| trainings | command | seconds | peak memory | |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for trainings in args.trainings:
            for line in measure_trainings(args.run.resolve(), Path(folder), trainings, args.only):
                print(line, flush=True)


if __name__ == "__main__":
    main()
