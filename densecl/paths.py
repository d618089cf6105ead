"""Paths of all files, relative to the project root; no other module spells them."""

from pathlib import Path

PARAMS = Path("params.yaml")
DVC_LOCK = Path("dvc.lock")
DVC_YAML = Path("dvc.yaml")
CODE_FOLDERS = ("densecl", "steps")  # folders whose files the stages of dvc.yaml depend on
PARAMS_PAGE = Path("docs/params.md")
PLANS = Path("data/plan")
RENDERED = Path("data/rendered")
MANIFESTS = Path("data/manifests")
TRANSFER = Path("data/transfer")
TRANSFER_INDEX = Path("data/transfer/index.json")
SKIPPED = Path("data/skipped")
VALIDATION_PAGE = Path("reports/validation.html")
MODELS = Path("models")
# Models that this pipeline does not train: links to their files, made by `plan`.
OTHER_MODELS = Path("data/models")
PROBE_INPUTS = Path("data/probe-inputs")  # likewise, files of the user's that probes read
LABEL_FILES = Path("data/label-files")  # likewise, class_map and class_list of datasets
CHECKPOINTS = Path("checkpoints")
ARCHIVES = Path(
    "cache/archives"
)  # indices of archives, and what .tar.gz were decompressed to; safe to delete
SHARDS = Path("cache/shards")  # fetched from remote roots; safe to delete
LISTINGS = Path("cache/listings")  # what each of these shards holds; safe to delete
SCANS = Path("cache/scans")  # what `prepare` found of the images of each; safe to delete
CHECKED_FOLDERS = Path("cache/checked-folders")  # their mtimes; safe to delete
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
TENSORBOARD = Path("tensorboard")
ZENML_STORE = Path(".zenml")  # ZenML's store
UI_LOGS = Path("cache/ui")
CLUSTER = Path("cache/cluster")  # jobs on other machines
CLUSTER_JOBS = Path("cache/cluster/jobs")  # those not yet restored, one file per job
CLUSTER_TOKEN = Path("cache/cluster/token")  # tells whether a node sees the same folder
SWEEPS = Path("sweeps")  # trials of `python -m pipelines sweep`; kept until you delete them
SWEEP_PAGE = Path("reports/sweep.html")
SWEEP_TRIALS = Path("reports/sweep.csv")
STUDIES = Path("studies")  # study files, and beside each the folder of what it found
STUDY_PAGE = Path("reports/study.html")
STUDY_TEXT = Path("reports/study.md")
ABLATION_FILE = Path("studies/ablations.yaml")
ABLATIONS_PAGE = Path("reports/ablations.html")
ABLATIONS = Path("reports/ablations.csv")
STAGE_LOGS = Path("cache/stages")  # output of each stage of `python -m pipelines run`


def get_model_name(mode: str, seed: int | None) -> str:
    """A model's name in paths; the seed is None for a model of `evaluate.models`, whose name takes
    the place of the mode.
    """
    return mode if seed is None else f"{mode}-{seed}"


def export_folder(mode: str, seed: int) -> Path:
    """Output of `python -m steps export`; not an artifact of the pipeline."""
    return Path("exports") / f"{mode}-{seed}"


def scan_name(dataset: str, number: int, count: int) -> str:
    """As a stage, whose log and job are named by it: a block of shards of so many."""
    return f"scan@{dataset}-{number}-of-{count}"


def get_scanned_dataset(name: str) -> str:
    """The dataset of a name of `scan_name`; "" for other names."""
    kind, _, block = name.partition("@")
    return block.rsplit("-", 3)[0] if kind == "scan" else ""


def scan_index(dataset: str) -> Path:
    """On a node: the index of the shards that its job scans."""
    return Path("cache/scan-index") / f"{dataset}.json"


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


def model_folder(mode: str, seed: int | None) -> Path:
    return OTHER_MODELS / mode if seed is None else MODELS / mode / f"seed-{seed}"


def training_folder(mode: str, seed: int) -> Path:
    return TRAINING / f"{mode}-{seed}"


def baseline_file(dataset: str) -> Path:
    return BASELINE / f"{dataset}.parquet"


def evaluation_folder(mode: str, seed: int | None) -> Path:
    return _resolve_folder(EVALUATION, mode) / get_model_name(mode, seed)


def evaluation_file(dataset: str, mode: str, seed: int | None) -> Path:
    return evaluation_folder(mode, seed) / f"{dataset}.json"


def predictions_folder(mode: str, seed: int | None) -> Path:
    return _resolve_folder(PREDICTIONS, mode) / get_model_name(mode, seed)


def predictions_file(dataset: str, mode: str, seed: int | None) -> Path:
    return predictions_folder(mode, seed) / f"{dataset}.parquet"


def control_predictions_file(dataset: str, mode: str, seed: int | None) -> Path:
    """Predictions on the matched control: validation images of the dataset's classes under its
    mask; empty for validation itself.
    """
    return predictions_folder(mode, seed) / f"{dataset}.control.parquet"


def probe_file(probe: str, mode: str, seed: int | None) -> Path:
    """The measures of a probe of one model. In a folder of their own: a dataset may be named like
    a probe.
    """
    return evaluation_folder(mode, seed) / "probes" / f"{probe}.json"


def probe_rows_file(probe: str, mode: str, seed: int | None) -> Path:
    """One row per image, one column per measure of a probe."""
    return predictions_folder(mode, seed) / "probes" / f"{probe}.parquet"


def probe_pictures_file(probe: str, mode: str, seed: int | None) -> Path:
    """Maps of a probe to look at; there only if the probe has some."""
    return predictions_folder(mode, seed) / "probes" / f"{probe}.safetensors"


def transfer_file(name: str) -> Path:
    """Images, masks and boxes of an entry of `transfer`, one row per image."""
    return TRANSFER / f"{name}.parquet"


def metrics_file(mode: str) -> Path:
    return METRICS / f"{mode}.json"


def plot_file(name: str) -> Path:
    return PLOTS / f"{name}.csv"


def curve_file(column: str) -> Path:
    """File of one column of history.csv; `top1/imagenet` becomes top1-imagenet.csv."""
    return PLOTS / "curves" / f"{column.replace('/', '-')}.csv"


def sweep_folder(name: str) -> Path:
    return SWEEPS / name


def sweep_plan(name: str) -> Path:
    """What all trials of a sweep share."""
    return sweep_folder(name) / "sweep.json"


def sweep_manifest(name: str) -> Path:
    """The training images as they were when the sweep began."""
    return sweep_folder(name) / "imagenet-train.parquet"


def trial_folder(sweep: str, mode: str, index: int) -> Path:
    return sweep_folder(sweep) / "trials" / f"{mode}-{index}"


def trial_name(sweep: str, mode: str, index: int) -> str:
    """As a stage, whose log, progress and job are named by it."""
    return f"trial@{sweep}-{mode}-{index}"


def trial_plan(sweep: str, mode: str, index: int) -> Path:
    return trial_folder(sweep, mode, index) / "plan.json"


def trial_result(sweep: str, mode: str, index: int) -> Path:
    return trial_folder(sweep, mode, index) / "result.json"


def trial_predictions(sweep: str, mode: str, index: int) -> Path:
    """One row per held-back image."""
    return trial_folder(sweep, mode, index) / "predictions.parquet"


def tuned_preset(name: str) -> Path:
    """The params with the values that a sweep has chosen."""
    return Path("presets") / f"tuned-{name}.yaml"


def study_folder(name: str) -> Path:
    """What a study keeps: small tables and predictions, no image and no model."""
    return STUDIES / name


def study_protocol(name: str) -> Path:
    """The study's files as they were before its first run."""
    return study_folder(name) / "protocol.json"


def study_end(name: str) -> Path:
    """The code as it was when the study was last finished."""
    return study_folder(name) / "end.json"


def _resolve_folder(folder: Path, mode: str) -> Path:
    """The cells of registered models have their own folder, since the report depends on the folders
    of the modes.
    """
    return CHAMPION_REPORTS / folder.name if mode in REGISTERED else folder
