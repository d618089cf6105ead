"""A trial of a sweep on a machine of a cluster, in a clone of the project."""

from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.artifacts import read_json
from densecl.tuning.fetch import fetch_training_images
from densecl.tuning.records import SweepPlan
from pipelines.engines.worker import run_step
from pipelines.stages.transfer import list_image_outs, pull_outs

if TYPE_CHECKING:
    from pipelines.stages.dvc_graph import StageGraph


def run_trial(graph: "StageGraph", name: str) -> None:
    """Run the trial of a name of `paths.trial_name`; its plans and its list of images are here.

    Errors: as `run_step`.
    """
    sweep, mode, index = name.removeprefix("trial@").rsplit("-", 2)
    plan = read_json(SweepPlan, paths.sweep_plan(sweep))
    pull_outs(graph, list_image_outs(graph, [Path(plan.root)]))
    fetch_training_images(plan)
    run_step(name, "trial", sweep, mode, index)
