"""A trial of a sweep on a machine of a cluster, in a clone of the project."""

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.artifacts import read_json
from densecl.errors import EXIT_OK, RetryLater
from densecl.tuning.fetch import fetch_training_images
from densecl.tuning.records import SweepPlan
from pipelines.engines.worker import announce
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.transfer import list_image_outs, pull_outs

POLL = 0.2  # s
KILLED = (-9, 137)  # the latter of a process that it started

if TYPE_CHECKING:
    from pipelines.stages.dvc_graph import StageGraph


def run_trial(graph: "StageGraph", name: str) -> None:
    """Run the trial of a name of `paths.trial_name`; its plans and its list of images are here.

    SystemExit with the status of the training where that is not 0; it has said why. RetryLater if
    it was killed or a signal has come.
    """
    sweep, mode, index = name.removeprefix("trial@").rsplit("-", 2)
    plan = read_json(SweepPlan, paths.sweep_plan(sweep))
    pull_outs(graph, list_image_outs(graph, [Path(plan.root)]))
    fetch_training_images(plan)
    announce(name)
    SIGNAL_FORWARDER.raise_if_signalled()
    process = subprocess.Popen([sys.executable, "-m", "steps", "trial", sweep, mode, index])
    while (status := process.poll()) is None:
        if SIGNAL_FORWARDER.received:  # also in the moment of the start
            SIGNAL_FORWARDER.terminate_children()
        time.sleep(POLL)
    if status in KILLED:
        raise RetryLater(f"{name}: its process was killed, as where memory runs out")
    if status != EXIT_OK:
        raise SystemExit(status)
