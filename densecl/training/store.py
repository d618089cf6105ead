"""The MLflow store, which may fail without failing anything else; what trainings and the report tell goes through here."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TRACKING_URI = "sqlite:///mlflow.db"
EXPERIMENT = "densecl"
# A server that does not answer may hold a training up for half a minute, not for MLflow's quarter of an hour.
PATIENCE = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}  # fmt: skip


def told(call: Callable[[Any], object]) -> str:
    """Carry out what is to be told to MLflow, given the module; "", or in one line what failed."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    try:
        import mlflow

        for talkative in ("alembic", "mlflow"):  # the store's migrations, told line by line
            logging.getLogger(talkative).setLevel(logging.WARNING)
        call(mlflow)
    except Exception as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return ""


def choose(mlflow: Any) -> None:
    """The store that MLFLOW_TRACKING_URI names, else the project's own, and the experiment in it."""
    mlflow.set_tracking_uri(os.environ.get("MLFLOW_TRACKING_URI", TRACKING_URI))
    mlflow.set_experiment(EXPERIMENT)


def track_report(files: Sequence[Path], metrics: Mapping[str, float]) -> str:
    """A run named `report` with the files as artifacts; "", or what failed: a store that fails costs no report."""

    def call(mlflow: Any) -> None:
        choose(mlflow)
        with mlflow.start_run(run_name="report", tags={"mode": "report"}):
            mlflow.log_metrics(dict(metrics))
            for file in files:
                mlflow.log_artifact(str(file))

    return told(call)
