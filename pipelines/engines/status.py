"""`python -m pipelines status | cancel`, and what `--dry-run` prints."""

from collections import defaultdict

from densecl import paths
from densecl.config.cluster_params import ClusterParams, EngineName
from densecl.config.params import load_params
from densecl.errors import DenseclError
from pipelines.engines.cluster import runs_elsewhere
from pipelines.engines.cluster_jobs import format_state, get_job_file, read_jobs
from pipelines.engines.executor import JobQueue
from pipelines.engines.queues import open_queue
from pipelines.engines.shard_scans import get_dataset, list_stored_datasets
from pipelines.engines.worker import SCAN
from pipelines.schemas import ClusterJob
from pipelines.stages.dvc_graph import ROOT_FILE, StageGraph, get_stage_kind


def print_status() -> None:
    """One line per job that was submitted and whose stages are not restored yet."""
    if not (jobs := read_jobs()):
        print("no job of this project is known to be on other machines")
        return
    for queue, own in _open_queues(jobs):
        states = queue.poll([job.id for job in own])
        for job in own:
            ended = states[job.id].state == "gone" and queue.fetch_result(job.id)
            state = f"ended on {ended.node}" if ended else format_state(states[job.id])
            print(f"{', '.join(job.stages)}: {queue.name} job {job.id}, {state}; {job.log}")


def cancel_jobs(stages: list[str]) -> None:
    """End the jobs of some stages, or all; DenseclError for a stage without a job."""
    jobs = read_jobs()
    known = {stage for job in jobs for stage in job.stages}
    if unknown := set(stages) - known:
        raise DenseclError(
            f"{min(unknown)}: found no job of it, expected one of "
            f"{', '.join(sorted(known)) or 'none'}; `python -m pipelines status` lists them"
        )
    chosen = [job for job in jobs if not stages or set(stages) & set(job.stages)]
    for queue, own in _open_queues(chosen):
        queue.cancel([job.id for job in own])
        for job in own:
            get_job_file(job).unlink(missing_ok=True)
            print(f"{', '.join(job.stages)}: {queue.name} job {job.id} cancelled")


def print_plan(graph: StageGraph, engine: EngineName | None) -> None:
    """What a run would do: the stages that changed and those after them, where each runs, and what
    its job asks for.
    """
    settings = load_params(paths.PARAMS).cluster
    queue = open_queue(engine or settings.engine, settings)
    affected: set[str] = set()
    for name, stage in graph.stages.items():
        with graph.hold_lock():
            changed = bool(stage.changed())
        if not (changed or affected.intersection(graph.upstream[name])):
            continue
        affected.add(name)
        why = "changed" if changed else "follows what changed"
        print(f"{name}: {why}; {_explain_place(graph, name, queue, settings)}")
    print(f"{len(affected)} of {len(graph.stages)} stages would be brought up to date")


def _explain_place(
    graph: StageGraph, name: str, queue: JobQueue | None, settings: ClusterParams
) -> str:
    kind = get_stage_kind(name)
    dataset = get_dataset(name)
    if queue is not None and kind == "prepare" and dataset in list_stored_datasets():
        job = queue.explain(f"scan@{dataset}", settings.resolve_job(SCAN), False)
        return f"on this machine, after jobs that scan what is new of its shards: {job}"
    if queue is None or not runs_elsewhere(name, ROOT_FILE):
        return "on this machine"
    if settings.is_joined(kind):
        return f"{queue.name}, in the job of the stage that it follows"
    return queue.explain(name, settings.resolve_job(kind), graph.is_exclusive(name))


def _open_queues(jobs: list[ClusterJob]) -> list[tuple[JobQueue, list[ClusterJob]]]:
    by_engine: dict[EngineName, list[ClusterJob]] = defaultdict(list)
    for job in jobs:
        by_engine[job.engine].append(job)
    settings = load_params(paths.PARAMS).cluster
    queues = [(open_queue(engine, settings), own) for engine, own in by_engine.items()]
    return [(queue, own) for queue, own in queues if queue is not None]
