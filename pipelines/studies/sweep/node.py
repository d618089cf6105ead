"""A trial on a machine of a cluster, in a clone of the project."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.artifacts import read_json
from densecl.errors import EXIT_OK
from densecl.tuning.records import SweepPlan
from pipelines.engines.worker import announce
from pipelines.stages.transfer import list_image_outs, pull_outs
from pipelines.studies.sweep.begin import fetch_training_images

if TYPE_CHECKING:
    from pipelines.stages.dvc_graph import StageGraph


def run_trial(graph: "StageGraph", name: str) -> None:
    """Run the trial of a name of `paths.trial_name`; its plans and its list of images are here.

    SystemExit with the status of the training where that is not 0; it has said why.
    """
    sweep, mode, index = name.removeprefix("trial@").rsplit("-", 2)
    plan = read_json(SweepPlan, paths.sweep_plan(sweep))
    pull_outs(graph, list_image_outs(graph, [Path(plan.root)]))
    fetch_training_images(plan)
    announce(name)
    command = [sys.executable, "-m", "steps", "trial", sweep, mode, index]
    status = subprocess.run(command, check=False).returncode
    if status != EXIT_OK:
        raise SystemExit(status)
