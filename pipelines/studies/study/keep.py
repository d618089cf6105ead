"""What a study keeps in its folder, to be committed: tables, predictions, trials, times. No image,
no model.
"""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd

from densecl import paths
from densecl.artifacts import read_json, write_text
from densecl.config.params import load_params
from densecl.tuning.records import SweepPlan

TIMES = "seconds.json"  # wall time by part, over all interruptions
# What the tables are computed from, below the folder of a part as below the project's.
RESULTS = (
    paths.plan_file("report"),
    paths.COST,
    paths.EVALUATION,
    paths.PREDICTIONS,
    paths.TRAINING,
)
KINDS = (".json", ".parquet", ".csv")
OF_TRIAL = ("result.json", "predictions.parquet")


def keep_results(name: str, part: str) -> None:
    """Copy all that the report computes its tables from to a folder of the study: its plan, and
    records and rows per image of every model, dataset and probe. `compare_modes` with that folder
    as its root gives the same numbers.
    """
    folder = paths.study_folder(name) / part
    shutil.rmtree(folder, ignore_errors=True)
    for place in RESULTS:
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        for file in files:
            if file.is_file() and file.suffix in KINDS:
                _copy(file, folder / file)


def keep_trials(name: str) -> None:
    """The finished trials of its sweep, and what they share."""
    folder = paths.study_folder(name)
    if not paths.sweep_plan(name).exists():
        return
    _copy(paths.sweep_plan(name), folder / "sweep.json")
    write_text(folder / "sweep-images.txt", _hash_images(name) + "\n")
    for result in sorted(paths.sweep_folder(name).glob("trials/*/result.json")):
        for file in (result.with_name(kept) for kept in OF_TRIAL):
            if file.exists():
                _copy(file, folder / "trials" / result.parent.name / file.name)


def restore_trials(name: str) -> None:
    """Where there is no sweep, begin it with the finished trials that the study keeps, if they are
    of the same settings and images.
    """
    from pipelines.studies.sweep.begin import begin_sweep

    folder = paths.study_folder(name)
    if paths.sweep_plan(name).exists() or not (folder / "sweep.json").exists():
        return
    plan = begin_sweep(load_params(paths.PARAMS), name)
    images = (folder / "sweep-images.txt").read_text(encoding="utf-8").strip()
    if plan != read_json(SweepPlan, folder / "sweep.json") or images != _hash_images(name):
        print(f"{folder}: its trials are of other settings or images; they are run again")
        return
    trials = paths.sweep_folder(name) / "trials"
    shutil.copytree(folder / "trials", trials, dirs_exist_ok=True)
    print(f"{folder}: {len(list(trials.iterdir()))} finished trials are taken from there")


def keep_tuning(name: str) -> None:
    """The table of trials and the preset."""
    folder = paths.study_folder(name)
    _copy(paths.SWEEP_TRIALS, folder / "sweep.csv")
    _copy(paths.tuned_preset(name), folder / "params-tuned.yaml")


def _hash_images(name: str) -> str:
    """Of names and contents of the images that a sweep trains and judges on."""
    rows = pd.read_parquet(paths.sweep_manifest(name), columns=["image_id", "sha256"])
    return hashlib.sha256(rows.to_csv(index=False).encode()).hexdigest()


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def read_seconds(name: str) -> dict[str, float]:
    path = paths.study_folder(name) / TIMES
    found: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    return found


def add_seconds(name: str, part: str, seconds: float) -> None:
    times = read_seconds(name)
    times[part] = times.get(part, 0.0) + seconds
    write_text(paths.study_folder(name) / TIMES, json.dumps(times, indent=1, sort_keys=True) + "\n")
