"""`python -m pipelines run`: bring all stages up to date, side by side."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.config.cluster_params import EngineName
from densecl.config.params import load_params
from densecl.runtime.hardware import count_cores
from densecl.runtime.locks import hold_lock
from pipelines.runtime import error_translation
from pipelines.runtime.own_python import put_python_first
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph, get_stage_kind

if TYPE_CHECKING:
    from pipelines.engines.executor import StageExecutor
    from pipelines.engines.scheduler import StageScheduler


def main(jobs: int | None, engine: EngineName | None, dry_run: bool) -> None:
    """Do what `dvc repro` does, with stages side by side; `dry_run` prints what would run, where.
    None: the default of params.yaml or of this machine.
    """
    load_params(paths.PARAMS)
    with error_translation.translate_errors(), hold_lock(paths.RETRAINING_LOCK):
        put_python_first()
        SIGNAL_FORWARDER.install_handlers()
        graph = StageGraph()
        if dry_run:
            from pipelines.engines.status import print_plan

            print_plan(graph, engine)
            return
        if not graph.is_up_to_date():
            # Only here: without work, half of the time goes into imports.
            with (
                open_executor(jobs, engine) as executor,
                schedule_stages(graph, list(graph.stages), executor) as scheduler,
            ):
                scheduler.run()
    print(paths.REPORT_TABLE.read_text(encoding="utf-8"))
    print(paths.REPORT_PAGE)


def update_stages(kinds: Sequence[str], jobs: int | None, engine: EngineName | None) -> None:
    """Bring the stages of some kinds (`validate`) up to date, and those that they depend on."""
    with error_translation.translate_errors(), hold_lock(paths.RETRAINING_LOCK):
        put_python_first()
        SIGNAL_FORWARDER.install_handlers()
        graph = StageGraph()
        names = graph.select_with_upstream(*kinds)
        if any(graph.must_run(name) for name in names if get_stage_kind(name) in kinds):
            with (
                open_executor(jobs, engine) as executor,
                schedule_stages(graph, names, executor) as scheduler,
            ):
                scheduler.run()


@contextmanager
def open_executor(jobs: int | None, engine: EngineName | None) -> Iterator["StageExecutor"]:
    """Where stages run: on this machine, or as jobs of a cluster."""
    from pipelines.engines.local import LocalExecutor
    from pipelines.engines.queues import open_queue

    settings = load_params(paths.PARAMS).cluster
    with LocalExecutor(jobs or choose_jobs()) as local:
        if (queue := open_queue(engine or settings.engine, settings)) is None:
            yield local
            return
        from pipelines.engines.cluster import ClusterExecutor

        with ClusterExecutor(queue, settings, local) as executor:
            yield executor


def choose_jobs() -> int:
    """One stage per core; one at a time where there is a GPU, whose memory a training may need."""
    has_gpu = (
        any(Path("/dev").glob("nvidia[0-9]*")) and os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    )
    return 1 if has_gpu else count_cores()


@contextmanager
def schedule_stages(
    graph: StageGraph, names: Sequence[str], executor: "StageExecutor"
) -> Iterator["StageScheduler"]:
    """A scheduler of these stages. When the block ends the lock file is sorted; an error of the
    block stops the running stages.
    """
    from pipelines.engines.display import StageDisplay
    from pipelines.engines.scheduler import StageScheduler

    with StageDisplay(len(names)) as display:
        scheduler = StageScheduler(graph, names, executor, display)
        try:
            yield scheduler
        finally:
            if scheduler.running:
                SIGNAL_FORWARDER.terminate_children()
            graph.sort_lock_file()
