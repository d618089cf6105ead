"""The MLflow store of training runs; `pipelines` keeps the model registry in it."""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from densecl import paths
from densecl.runtime.locks import hold_lock

LOCK_TIMEOUT = 120.0  # s; creating the database takes 10
TRACKING_URI = "sqlite:///mlflow.db"
TRAINING_EXPERIMENT = "densecl"
DURATION_METRIC = "wall_seconds"  # of a run that has written its model
# An unreachable server may delay training by half a minute, not by MLflow's quarter of an hour.
MLFLOW_ENV_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",  # without git, fifty lines of what MLflow does not need
}


def import_mlflow() -> Any:
    """The module mlflow, set to MLFLOW_TRACKING_URI or else TRACKING_URI; logs warnings only."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", TRACKING_URI)
    for name, value in MLFLOW_ENV_DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for logger_name in ("alembic", "mlflow"):  # alembic logs each migration
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.utils.git_utils").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    return mlflow


def activate_experiment(mlflow: Any, name: str) -> None:
    """Make the experiment of this name the active one.

    Below a path with % and two digits, MLflow would take these for an escape and write to another
    folder: there its files have an address in which the path is quoted.
    """
    root = Path.cwd()
    is_local = mlflow.get_tracking_uri().startswith("sqlite:")
    has_escape = unquote(str(root)) != str(root)
    if is_local and has_escape and mlflow.get_experiment_by_name(name) is None:
        folder = hashlib.sha256(name.encode()).hexdigest()[:16]
        mlflow.create_experiment(name, artifact_location=(root / "mlruns" / folder).as_uri())
    mlflow.set_experiment(name)


def select_experiment(mlflow: Any) -> None:
    """Make TRAINING_EXPERIMENT the active one, by one process at a time: two that create the
    database of a new project at once leave broken tables.
    """
    with hold_lock(paths.MLFLOW_LOCK, LOCK_TIMEOUT):
        activate_experiment(mlflow, TRAINING_EXPERIMENT)


def log_report(files: Sequence[Path], metrics: Mapping[str, float]) -> str:
    """Log a run named `report` with metrics and files; return the error, or "" if there is none.

    A failing store must not cost the report.
    """
    try:
        mlflow = import_mlflow()
        select_experiment(mlflow)
        with mlflow.start_run(run_name="report", tags={"kind": "report"}):
            mlflow.log_metrics(dict(metrics))
            for file in files:
                mlflow.log_artifact(str(file))
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return ""
