"""Paths of all files, relative to the project root; no other module spells them."""

from pathlib import Path

PARAMS = Path("params.yaml")
DVC_LOCK = Path("dvc.lock")
CODE_FOLDERS = ("densecl", "steps")  # folders whose files the stages of dvc.yaml depend on
PARAMS_PAGE = Path("docs/params.md")
PLANS = Path("data/plan")
RENDERED = Path("data/rendered")
MANIFESTS = Path("data/manifests")
SKIPPED = Path("data/skipped")
VALIDATION_PAGE = Path("reports/validation.html")
MODELS = Path("models")
CHECKPOINTS = Path("checkpoints")
ARCHIVES = Path(
    "cache/archives"
)  # indices of archives, and what .tar.gz were decompressed to; safe to delete
RUNS = Path("runs")
EVALUATION = Path("reports/evaluation")
PREDICTIONS = Path("reports/predictions")
TRAINING = Path("reports/training")
COST = Path("reports/cost.json")
COMPARISON = Path("reports/comparison.csv")
REPORT_PAGE = Path("reports/report.html")
REPORT_TEXT = Path("reports/report.md")
REPORT_TABLE = Path("reports/table.txt")
METRICS = Path("reports/metrics")  # what `dvc metrics show` reads
PLOTS = Path("reports/plots")  # and `dvc plots show`
REPORTS = Path("reports")
COMPARE_FOLDER = Path(
    "reports/compare"
)  # what `python -m steps compare` writes; no artifact of the pipeline

# Retraining.
# Used as modes: the champion and the anchor are two more models to evaluate.
REGISTERED = (CHAMPION, ANCHOR) = ("champion", "anchor")
CHAMPION_REPORTS = Path("reports/champion")  # their cells, and the dvc.yaml of their evaluation
MODEL_CARD = Path("models/card.md")
CHANGES = Path("reports/changes.json")
GATE = Path("reports/gate.json")
RETRAINING_PAGE = Path("reports/retraining.html")
RETRAINING_LOG = Path("reports/retraining.csv")  # one line per retraining
SCHEDULE_LOG = Path("reports/schedule.csv")  # one line per tick of the scheduler
BASELINE = Path(
    "data/baseline"
)  # manifests that the last judged candidate was trained and evaluated on
BASELINE_NEXT = Path(
    "data/baseline-next"
)  # becomes the baseline once the registry has what was judged
BASELINE_PLAN = Path("data/baseline/plan.json")  # the params and code that made it
RETRAINING_LOCK = Path("cache/retraining.lock")
MLFLOW_LOCK = Path("cache/mlflow.lock")
ZENML_STORE = Path(".zenml")  # ZenML's store
UI_LOGS = Path("cache/ui")
STAGE_LOGS = Path("cache/stages")  # output of each stage of `python -m pipelines run`


def export_folder(mode: str, seed: int) -> Path:
    """Output of `python -m steps export`; not an artifact of the pipeline."""
    return Path("exports") / f"{mode}-{seed}"


def plan_file(unit: str) -> Path:
    """Resolved params of a unit: a dataset, a mode, validate, cost, evaluate or report."""
    return PLANS / f"{unit}.json"


def stage_log(stage: str) -> Path:
    """Output of a stage that last ran beside others."""
    return STAGE_LOGS / f"{stage}.log"


def stage_progress_file(stage: str) -> Path:
    """Exists while a stage runs; holds its progress as JSON."""
    return STAGE_LOGS / f"{stage}.progress"


def rendered_folder(folder: str) -> Path:
    return RENDERED / folder


def masks_folder(folder: str) -> Path:
    """Exact object masks of a built-in dataset: same names as the images, .png."""
    return RENDERED / "masks" / folder


def manifest_file(dataset: str) -> Path:
    return MANIFESTS / f"{dataset}.parquet"


def skipped_file(dataset: str) -> Path:
    """Counts of the files that are not in the manifest; training does not depend on them."""
    return SKIPPED / f"{dataset}.json"


def validation_file(dataset: str) -> Path:
    return Path("data/validation") / f"{dataset}.json"


def model_folder(mode: str, seed: int) -> Path:
    return MODELS / mode / f"seed-{seed}"


def training_folder(mode: str, seed: int) -> Path:
    return TRAINING / f"{mode}-{seed}"


def baseline_file(dataset: str) -> Path:
    return BASELINE / f"{dataset}.parquet"


def evaluation_folder(mode: str, seed: int) -> Path:
    return _resolve_folder(EVALUATION, mode) / f"{mode}-{seed}"


def evaluation_file(dataset: str, mode: str, seed: int) -> Path:
    return evaluation_folder(mode, seed) / f"{dataset}.json"


def predictions_folder(mode: str, seed: int) -> Path:
    return _resolve_folder(PREDICTIONS, mode) / f"{mode}-{seed}"


def predictions_file(dataset: str, mode: str, seed: int) -> Path:
    return predictions_folder(mode, seed) / f"{dataset}.parquet"


def control_predictions_file(dataset: str, mode: str, seed: int) -> Path:
    """Predictions on the matched control: validation images of the dataset's classes under its
    mask; empty for validation itself.
    """
    return predictions_folder(mode, seed) / f"{dataset}.control.parquet"


def metrics_file(mode: str) -> Path:
    return METRICS / f"{mode}.json"


def plot_file(name: str) -> Path:
    return PLOTS / f"{name}.csv"


def curve_file(column: str) -> Path:
    """File of one column of history.csv; `top1/imagenet` becomes top1-imagenet.csv."""
    return PLOTS / "curves" / f"{column.replace('/', '-')}.csv"


def _resolve_folder(folder: Path, mode: str) -> Path:
    """The cells of registered models have their own folder, since the report depends on the folders
    of the modes.
    """
    return CHAMPION_REPORTS / folder.name if mode in REGISTERED else folder
