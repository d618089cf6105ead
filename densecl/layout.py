"""Where everything lies, relative to the project's root; paths are spelt here and nowhere else."""

from __future__ import annotations

from pathlib import Path

PARAMS = Path("params.yaml")
PARAMS_PAGE = Path("docs/params.md")
PLAN = Path("data/plan")
RENDERED = Path("data/rendered")
MANIFESTS = Path("data/manifests")
VALIDATION = Path("data/validation")
VALIDATION_PAGE = Path("reports/validation.html")
LOCK = Path("dvc.lock")  # what DVC knows of every artifact
CHECKPOINTS = Path("checkpoints")
ARCHIVES = Path("cache/archives")  # indices of archives, and what .tar.gz were decompressed to; safe to delete
RUNS = Path("runs")
EVALUATION = Path("reports/evaluation")
PREDICTIONS = Path("reports/predictions")
TRAINING = Path("reports/training")
COMPARISON = Path("reports/comparison.csv")
REPORT_PAGE = Path("reports/report.html")
REPORT_TEXT = Path("reports/report.md")
REPORT_TABLE = Path("reports/table.txt")
METRICS = Path("reports/metrics")  # what `dvc metrics show` reads
PLOTS = Path("reports/plots")  # and `dvc plots show`


def exported(mode: str, seed: int) -> Path:
    """What `python -m steps export` writes; no artifact of the pipeline."""
    return Path("exports") / f"{mode}-{seed}"


def plan(unit: str) -> Path:
    """Resolved values of a unit: a set, a mode, validate, evaluate or report."""
    return PLAN / f"{unit}.json"


def rendered(folder: str) -> Path:
    return RENDERED / folder


def masks(folder: str) -> Path:
    """Exact object masks of a built-in set: same names as the images, .png."""
    return RENDERED / "masks" / folder


def manifest(dataset: str) -> Path:
    return MANIFESTS / f"{dataset}.parquet"


def verdict(dataset: str) -> Path:
    return VALIDATION / f"{dataset}.json"


def model(mode: str, seed: int) -> Path:
    return Path("models") / mode / f"seed-{seed}"


def training(mode: str, seed: int) -> Path:
    return TRAINING / f"{mode}-{seed}"


def evaluation(dataset: str, mode: str, seed: int) -> Path:
    return EVALUATION / dataset / f"{mode}-{seed}.json"


def predictions(dataset: str, mode: str, seed: int) -> Path:
    return PREDICTIONS / dataset / f"{mode}-{seed}.parquet"


def control_predictions(dataset: str, mode: str, seed: int) -> Path:
    """Rows of the matched control: validation images of the set's classes under its mask; empty for validation itself."""
    return PREDICTIONS / dataset / f"{mode}-{seed}.control.parquet"


def metrics(mode: str) -> Path:
    return METRICS / f"{mode}.json"


def plot(name: str) -> Path:
    return PLOTS / f"{name}.csv"


def curve(column: str) -> Path:
    """Of a column of history.csv; `top1/imagenet` becomes top1-imagenet.csv."""
    return PLOTS / "curves" / f"{column.replace('/', '-')}.csv"
