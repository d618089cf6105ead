"""ZenML steps over DVC stages: each brings one stage up to date and returns references to its
files, never the files.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from zenml import log_metadata, step
from zenml.types import HTMLString

from densecl import paths
from densecl.artifacts import Evaluation, MissingEvaluation, read_evaluation
from densecl.runtime.git import run_git
from pipelines.engines.executor import StageExecutor
from pipelines.engines.run import schedule_stages
from pipelines.engines.scheduler import StageScheduler
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.schemas import StageRef
from pipelines.stages.dvc_graph import ROOT_FILE, StageGraph, get_stage_kind
from pipelines.stages.runs import find_training_run

# What ZenML would keep of its own accord is of the pointers, not of what they point to; each row of
# it costs a commit.
STEP_OPTIONS: dict[str, Any] = {
    "enable_cache": False,
    "enable_artifact_metadata": False,
    "enable_artifact_visualization": False,
    "enable_step_logs": False,
}
Reference = Annotated[StageRef, "reference"]
LOGGED_METRICS = (
    "top1",
    "top5",
    "macro_top1",
    "nll",
    "ece",
)  # of an evaluation, on ZenML's dashboard


def get_graph(file: Path = ROOT_FILE) -> StageGraph:
    """The graph that all steps of this process share."""
    return _load_graph(file)


_load_graph = cache(StageGraph)
# ZenML calls the steps with parameters only; what runs their stages is state of this process.
FINISHED: set[tuple[str, str]] = set()  # file and name of stages whose steps a replay skips
_executors: list[StageExecutor] = []
_schedulers: dict[str, StageScheduler] = {}


@contextmanager
def use_executor(executor: StageExecutor) -> Iterator[None]:
    """Within the block, steps run their stages in `executor`."""
    _executors.append(executor)
    try:
        yield
    finally:
        _executors.pop()


@step(**STEP_OPTIONS)
def run_stage(name: str, file: str, upstream: list[StageRef]) -> Reference:  # noqa: ARG001
    return _update_stage(name, file)


@step(**STEP_OPTIONS)
def run_evaluation(
    name: str,
    file: str,
    upstream: list[StageRef],  # noqa: ARG001
) -> tuple[Reference, Annotated[dict[str, Any], "metrics"]]:
    reference = _update_stage(name, file)
    files = sorted(file for out in reference.outs for file in Path(out).glob("*.json"))
    return reference, {file.stem: _list_metrics(read_evaluation(file)) for file in files}


def _list_metrics(cell: Evaluation | MissingEvaluation) -> dict[str, Any]:
    if isinstance(cell, MissingEvaluation):
        return {"reason": cell.reason}
    return {"images": cell.images} | {metric: getattr(cell, metric) for metric in LOGGED_METRICS}


@step(**STEP_OPTIONS | {"enable_artifact_visualization": True})
def run_report(
    name: str,
    file: str,
    upstream: list[StageRef],  # noqa: ARG001
) -> tuple[Reference, Annotated[pd.DataFrame, "comparison"], Annotated[HTMLString, "page"]]:
    reference = _update_stage(name, file)
    return (
        reference,
        pd.read_csv(paths.COMPARISON),
        HTMLString(paths.REPORT_PAGE.read_text(encoding="utf-8")),
    )


STEPS = {"evaluate": run_evaluation, "report": run_report}


def add_stages(
    names: Sequence[str],
    references: dict[str, Any],
    file: Path = ROOT_FILE,
    after: Sequence[Any] = (),
) -> list[Any]:
    """Add one step per stage, in order; while a step waits for its stage, others of `names` run.
    `references` holds those of earlier stages by name, and gets the new ones. Stages without
    upstream stages follow `after`. Returns the new references.
    """
    added, graph = [], get_graph(file)
    waiting = [name for name in names if (str(file), name) not in FINISHED]
    with schedule_stages(graph, waiting, _executors[-1]) as _schedulers[str(file)]:
        for name in names:
            upstream = [references[u] for u in graph.upstream[name] if u in references]
            # Parameters, not inputs: an input that is no reference becomes an artifact of its own.
            zenml_step = STEPS.get(get_stage_kind(name), run_stage).with_options(
                parameters={"name": name, "file": str(file)}
            )
            outputs = zenml_step(upstream=upstream or list(after), id=get_step_id(name, file))
            references[name] = outputs[0] if isinstance(outputs, tuple) else outputs
            added.append(references[name])
    return added


def get_step_id(name: str, file: Path = ROOT_FILE) -> str:
    """A stage's name in ZenML's alphabet."""
    prefix = "" if file == ROOT_FILE else f"{file.parent.name}_"
    return prefix + re.sub(r"\W+", "_", name)


def _update_stage(name: str, file: str) -> StageRef:
    with SIGNAL_FORWARDER.handle_signals():
        result, reference, seconds = _schedulers[file].wait_for(name)
    metadata: dict[str, Any] = {
        "did": result,
        "seconds": round(seconds, 2),
        "git": get_revision(),
        "md5": reference.outs,
    }
    models = [Path(path) for path in reference.outs if path.startswith(f"{paths.MODELS}/")]
    if models and (run := find_training_run(models[0])):
        metadata["mlflow_run"] = run
    log_metadata(metadata)
    return reference


@cache
def get_revision() -> str:
    """The current commit, with "+" if tracked files differ; "" outside git."""
    return run_git(
        "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+", timeout=600
    ).strip()
