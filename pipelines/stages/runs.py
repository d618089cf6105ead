"""ZenML and MLflow runs of this project."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from densecl.errors import DenseclError
from pipelines.registry import mlflow_client
from pipelines.runtime import zenml_env
from pipelines.stages.dvc_graph import StageGraph, get_stage_kind

SCAN_STAGES = ("render", "prepare")  # stages whose outs stand for the images

if TYPE_CHECKING:
    from zenml.models import PipelineRunResponse


def find_training_run(folder: Path) -> str | None:
    """MLflow id of the run that trained the model in `folder`; None if no reachable store has
    it.
    """
    fingerprint = json.loads((folder / "config.json").read_text(encoding="utf-8"))["fingerprint"]
    try:
        runs = mlflow_client.find_training_runs(fingerprint)
    except DenseclError:  # a store that is down: the link is missing, the pipeline goes on
        return None
    return runs[0][0] if runs else None


def reap_dead_runs() -> list[str]:
    """Mark runs that a kill left unfinished as failed, and return their names; only if the store is
    local and locked.
    """
    client = zenml_env.get_client()
    from zenml.enums import ExecutionStatus, StoreType
    from zenml.models import PipelineRunUpdate, StepRunUpdate

    if client.zen_store.type != StoreType.SQL:
        return []
    names = []
    unfinished = "oneof:" + json.dumps(
        [status.value for status in ExecutionStatus if not status.is_finished]
    )
    for run in client.list_pipeline_runs(status=unfinished, size=100):
        for step in client.list_run_steps(pipeline_run_id=run.id, status=unfinished, size=100):
            client.zen_store.update_run_step(step.id, StepRunUpdate(status=ExecutionStatus.FAILED))
        reason = "its process ended before it did"
        client.zen_store.update_run(
            run.id, PipelineRunUpdate(status=ExecutionStatus.FAILED, status_reason=reason)
        )
        names.append(str(run.name))
    return names


def list_finished_stages(run: "PipelineRunResponse") -> list[tuple[str, str]]:
    """File and name of the stages whose steps succeeded."""
    return [
        (str(step.config.parameters["file"]), str(step.config.parameters["name"]))
        for step in run.steps.values()
        if step.status.is_successful and "reference" in step.outputs
    ]


def list_changed_stages(run: "PipelineRunResponse") -> list[str]:
    """Stages of the run's finished steps that have changed since; replay would mix them with new
    results.

    Images that came since do not count while the manifests are those of the run: it continues with
    these.
    """
    graphs: dict[str, StageGraph] = {}
    changed = []
    for step in run.steps.values():
        if not (step.status.is_successful and "reference" in step.outputs):
            continue
        file = str(step.config.parameters["file"])
        if file not in graphs:
            graphs[file] = StageGraph(Path(file))
        try:
            reference = step.outputs["reference"][0].load()
        # of whatever store holds it: ZenML keeps absolute paths, and the project may have moved
        except Exception as error:
            raise DenseclError(
                f"{run.name}: what its steps left cannot be read, as after the project was moved "
                f"({' '.join(str(error).split())[:200]}); `python -m pipelines "
                f"{get_pipeline_name(run)}` begins again, and does "
                "only what is not done"
            ) from None
        if not graphs[file].is_unchanged(
            reference, deps=get_stage_kind(reference.stage) not in SCAN_STAGES
        ):
            changed.append(reference.stage)
    return changed


def get_pipeline_name(run: "PipelineRunResponse") -> str:
    """`comparison` or `retraining`."""
    return run.pipeline.name if run.pipeline else "retraining"


def get_latest_run() -> "PipelineRunResponse | None":
    """The newest run of either pipeline."""
    runs = zenml_env.get_client().list_pipeline_runs(sort_by="desc:created", size=1, hydrate=True)
    return runs.items[0] if runs.items else None
