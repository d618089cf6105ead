"""`python -m pipelines sweep`: the same number of trials for each mode, and what they chose."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.artifacts import write_text
from densecl.config.cluster_params import EngineName
from densecl.config.params import MODES, TRAIN_SET, Params, load_params
from densecl.errors import DenseclError, RetryLater
from densecl.pages.formatting import clip_list, format_points, join_names
from densecl.runtime.locks import hold_lock
from pipelines.runtime.signals import SIGNAL_FORWARDER

if TYPE_CHECKING:
    from densecl.tuning.records import SweepPlan
    from pipelines.studies.sweep.machines import TrialMachines
    from pipelines.studies.sweep.queue import TrialQueue

LEAST_BUDGET = 2  # trials: the params' own values, and one more
BEGIN_TIMEOUT = 3600.0  # s; the process that begins a sweep lists its images
NAME = r"[a-z0-9][a-z0-9_-]*"


def main(
    budget: int,
    name: str,
    jobs: int | None,
    engine: EngineName | None,
    take_over: bool,
    dry_run: bool,
) -> None:
    """Run what is missing of `budget` trials of each mode, then write the preset, the page and the
    table of trials; `dry_run` only prints how many there are, and where each would run. Resumes;
    several processes may run it at once, each on its own machine.
    """
    if budget < LEAST_BUDGET:
        raise DenseclError(f"--budget: found {budget}, expected at least {LEAST_BUDGET} trials")
    if not re.fullmatch(NAME, name):
        raise DenseclError(f"--name: found {name!r}, expected a-z, 0-9, '-' and '_'")
    params = load_params(paths.PARAMS)
    from pipelines.engines import run
    from pipelines.studies.sweep.begin import begin_sweep
    from pipelines.studies.sweep.machines import run_trials
    from pipelines.studies.sweep.queue import TrialQueue, name_worker

    if dry_run:
        print(describe_sweep(params, budget, engine))
        return
    if TRAIN_SET in params.render and not Path(params.datasets[TRAIN_SET].root).exists():
        run.update_stages(("render",), jobs, None)  # as in a fresh clone
    SIGNAL_FORWARDER.install_handlers()
    # With --jobs one process runs as many trials as its machine can take.
    with hold_lock(paths.sweep_folder(name) / f"{name_worker()}.lock"):
        with hold_lock(paths.sweep_folder(name) / "begin.lock", BEGIN_TIMEOUT):
            plan = begin_sweep(params, name)
            queue = TrialQueue(plan, budget)
        run_trials(plan, queue, open_machines(params, plan, jobs, engine), take_over)
        if others := queue.list_others():
            raise RetryLater(
                f"{clip_list(others, 3)}: run this command again when they have finished; if that "
                "machine is gone, with --take-over"
            )
        with hold_lock(paths.sweep_folder(name) / "begin.lock", BEGIN_TIMEOUT):
            begin_sweep(load_params(paths.PARAMS), name)  # the preset is of params not edited since
            write_results(plan, queue, params.report.confidence)


def open_machines(
    params: Params, plan: "SweepPlan", jobs: int | None, engine: EngineName | None
) -> "TrialMachines":
    """Processes of this machine, or jobs of a cluster. DenseclError if another engine has trials of
    this sweep: both would write the same checkpoints.
    """
    from pipelines.engines.cluster_jobs import read_jobs
    from pipelines.engines.queues import open_queue

    engine = engine or params.cluster.engine
    for job in read_jobs():
        is_own = job.stages[0].rsplit("-", 2)[0] == f"trial@{plan.name}"
        if is_own and job.engine != engine:
            raise DenseclError(
                f"{job.stages[0]}: found {job.engine} job {job.id}, expected none beside engine "
                f"{engine}; go on with --engine {job.engine}, or `python -m pipelines cancel "
                f"{job.stages[0]}`"
            )
    if queue := open_queue(engine, params.cluster):
        from pipelines.studies.sweep.cluster import TrialJobs

        return TrialJobs(queue, params.cluster, plan)
    from pipelines.engines.run import choose_jobs
    from pipelines.studies.sweep.workers import TrialProcesses

    return TrialProcesses(plan.name, jobs or choose_jobs())


def describe_sweep(params: Params, budget: int, engine: EngineName | None) -> str:
    """How many trials, and what the job of one asks for."""
    from pipelines.engines.queues import open_queue

    place = "on this machine"
    if queue := open_queue(engine or params.cluster.engine, params.cluster):
        asked = queue.explain("trial", params.cluster.resolve_job("train"), False)
        place = f"{params.cluster.jobs} at a time at most, each: {asked}"
    modes = [mode for mode in MODES if mode in params.modes]
    return f"{budget} trials of each of {join_names(modes)}; {place}"


def write_results(plan: "SweepPlan", queue: "TrialQueue", confidence: float) -> None:
    """Write presets/tuned-<name>.yaml, reports/sweep.html and reports/sweep.csv."""
    from pipelines.studies.sweep.page import write_page
    from pipelines.studies.sweep.preset import write_preset
    from pipelines.studies.sweep.results import build_trial_table, read_trials

    modes = read_trials(plan, queue, confidence)
    preset = write_preset(plan, modes)
    write_text(paths.SWEEP_TRIALS, build_trial_table(modes).to_csv(index=False))
    write_page(plan, modes, preset, confidence)
    for trials in modes:
        gain = f"{format_points(trials.gain.value)} points" if trials.gain else "not known"
        print(
            f"{trials.mode}: best of {len(trials.results)} is trial {trials.best.index + 1}; gain "
            f"over the values of the params, on other held-back images: {gain}"
        )
    print(f"{preset}\n{paths.SWEEP_PAGE}")
