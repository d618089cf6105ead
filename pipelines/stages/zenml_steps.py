"""ZenML steps over DVC stages: each brings one stage up to date and hands on where its files lie,
never the files.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from zenml import log_metadata, step
from zenml.types import HTMLString

from densecl import paths
from densecl.artifacts import NoEvaluation, read_cell
from pipelines.schemas import Did, StageRef
from pipelines.stages.dvc_graph import ROOT, Graph, kind

# What ZenML would keep of its own accord is of the pointers, not of what they point to; each row of
# it costs a commit.
QUIET: dict[str, Any] = {
    "enable_cache": False,
    "enable_artifact_metadata": False,
    "enable_artifact_visualization": False,
    "enable_step_logs": False,
}
Reference = Annotated[StageRef, "reference"]
SHOWN = ("top1", "top5", "macro_top1", "nll", "ece")  # of an evaluation, on ZenML's dashboard


def graph(file: Path = ROOT) -> Graph:
    """One for all steps that run in this process."""
    return _opened(file)


_opened = cache(Graph)


@step(**QUIET)
def run_stage(name: str, file: str, upstream: list[StageRef]) -> Reference:  # noqa: ARG001 - an arrow of the graph
    return _bring(name, file)


@step(**QUIET)
def run_evaluation(
    name: str,
    file: str,
    upstream: list[StageRef],  # noqa: ARG001
) -> tuple[Reference, Annotated[dict[str, Any], "metrics"]]:
    reference = _bring(name, file)
    cell = read_cell(next(Path(p) for p in reference.outs if p.endswith(".json")))
    if isinstance(cell, NoEvaluation):
        return reference, {"reason": cell.reason}
    return reference, {"images": cell.images} | {metric: getattr(cell, metric) for metric in SHOWN}


@step(**QUIET | {"enable_artifact_visualization": True})
def run_report(
    name: str,
    file: str,
    upstream: list[StageRef],  # noqa: ARG001
) -> tuple[Reference, Annotated[pd.DataFrame, "comparison"], Annotated[HTMLString, "page"]]:
    reference = _bring(name, file)
    return (
        reference,
        pd.read_csv(paths.COMPARISON),
        HTMLString(paths.REPORT_PAGE.read_text(encoding="utf-8")),
    )


STEPS = {"evaluate": run_evaluation, "report": run_report}


def add(
    names: Sequence[str], found: dict[str, Any], file: Path = ROOT, first: Sequence[Any] = ()
) -> list[Any]:
    """One step a stage, in order; `found` has the references of earlier stages by name, and gets
    these. Stages without a stage before them follow `first`. Returns the new references.
    """
    new = []
    for name in names:
        upstream = [found[u] for u in graph(file).upstream[name] if u in found] or list(first)
        # Parameters, not inputs: an input that is no reference becomes an artifact of its own.
        one = STEPS.get(kind(name), run_stage).with_options(
            parameters={"name": name, "file": str(file)}
        )
        made = one(upstream=upstream, id=identifier(name, file))
        found[name] = made[0] if isinstance(made, tuple) else made
        new.append(found[name])
    return new


def identifier(name: str, file: Path = ROOT) -> str:
    """A stage's name as ZenML allows it."""
    prefix = "" if file == ROOT else f"{file.parent.name}_"
    return prefix + re.sub(r"\W+", "_", name)


def _bring(name: str, file: str) -> StageRef:
    stages, started = graph(Path(file)), time.monotonic()
    place = f"[{list(stages.stages).index(name) + 1}/{len(stages.stages)}] {name}"
    did, reference = stages.bring(name, lambda: print(f"{place} ...", flush=True))
    seconds = time.monotonic() - started
    print(f"{place}: {did}" + ("" if did == "unchanged" else f", {seconds:.1f} s"), flush=True)
    log_metadata(_metadata(did, reference, seconds))
    return reference


def _metadata(did: Did, reference: StageRef, seconds: float) -> dict[str, Any]:
    told: dict[str, Any] = {
        "did": did,
        "seconds": round(seconds, 2),
        "git": revision(),
        "md5": reference.outs,
    }
    if kind(reference.stage) == "train" and (run := _tracked(reference)):
        told["mlflow_run"] = run
    return told


@cache
def revision() -> str:
    """The commit that is checked out, "+" behind it where files that git tracks differ; "" outside
    git.
    """
    done = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()


def _tracked(reference: StageRef) -> str | None:
    from pipelines.stages.runs import training_run

    return training_run(next(Path(p) for p in reference.outs if p.startswith("models/")))
