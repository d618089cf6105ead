"""Train and score one trial of a sweep."""

import os

from densecl import paths
from densecl.artifacts import read_json
from densecl.config.params import load_params
from densecl.runtime.launch import count_nodes, launch_processes
from densecl.tuning.records import SweepPlan, TrialPlan

HOW_TO_TRAIN = ("checkpoint_minutes", "parallel", "checkpoint_activations")


def main(sweep: str, mode: str, index: int) -> None:
    """Write result.json, predictions.parquet and training/ in the folder of the trial."""
    if paths.trial_result(sweep, mode, index).exists():
        return
    train = load_params(paths.PARAMS).train
    if train.processes * count_nodes() > 1 and "WORLD_SIZE" not in os.environ:
        launch_processes(train.processes, ["-m", "steps", "trial", sweep, mode, str(index)])
        return
    from densecl.tuning.trial import run_trial

    run_trial(
        read_json(SweepPlan, paths.sweep_plan(sweep)),
        read_json(TrialPlan, paths.trial_plan(sweep, mode, index)),
        {name: getattr(train, name) for name in HOW_TO_TRAIN},
    )
