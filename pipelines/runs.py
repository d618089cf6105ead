"""Runs of ZenML and of MLflow that belong to this project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from densecl.training.store import EXPERIMENT, connected

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


def training_run(folder: Path) -> str | None:
    """MLflow's id of the run that trained the model in `folder`; None where no store that answers knows it."""
    fingerprint = json.loads((folder / "config.json").read_text(encoding="utf-8"))["fingerprint"]
    try:
        client = connected().MlflowClient()
        found = client.get_experiment_by_name(EXPERIMENT)
        runs = client.search_runs([found.experiment_id], f"tags.fingerprint = '{fingerprint}'") if found else []
    except Exception:  # a store that is down: the link is missing, the pipeline goes on
        return None
    return str(runs[0].info.run_id) if runs else None


def reap() -> list[str]:
    """Mark runs that a kill left running as failed; their names. Only where the store is ours alone, and its lock is held."""
    from zenml.client import Client
    from zenml.enums import ExecutionStatus, StoreType
    from zenml.models import PipelineRunUpdate, StepRunUpdate

    client = Client()
    if client.zen_store.type != StoreType.SQL:
        return []
    ended = []
    for run in client.list_pipeline_runs(status=ExecutionStatus.RUNNING, size=100):
        for step in client.list_run_steps(pipeline_run_id=run.id, status=ExecutionStatus.RUNNING, size=100):
            client.zen_store.update_run_step(step.id, StepRunUpdate(status=ExecutionStatus.FAILED))
        why = "its process ended before it did"
        client.zen_store.update_run(run.id, PipelineRunUpdate(status=ExecutionStatus.FAILED, status_reason=why))
        ended.append(str(run.name))
    return ended


def last() -> PipelineRunResponse | None:
    """The newest run of either pipeline."""
    from zenml.client import Client

    runs = Client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True)
    return runs.items[0] if runs.items else None
