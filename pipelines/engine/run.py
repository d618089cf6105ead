"""`python -m pipelines run`: bring all stages up to date, side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from densecl import paths
from densecl.config.params import load_params
from densecl.runtime.hardware import count_cores
from densecl.runtime.locks import hold_lock
from pipelines.engine.display import StageDisplay
from pipelines.engine.executor import LocalExecutor
from pipelines.engine.scheduler import StageScheduler
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph


def main(jobs: int | None = None) -> None:
    """Do what `dvc repro` does, with up to `jobs` stages at a time (default: one per core)."""
    load_params(paths.PARAMS)
    with hold_lock(paths.RETRAINING_LOCK):
        SIGNAL_FORWARDER.install_handlers()
        graph = StageGraph()
        if not graph.is_up_to_date():
            with start_stages(graph, list(graph.stages), jobs) as scheduler:
                scheduler.run()
    print(paths.REPORT_TABLE.read_text(encoding="utf-8"))
    print(paths.REPORT_PAGE)


@contextmanager
def start_stages(
    graph: StageGraph, names: Sequence[str], jobs: int | None
) -> Iterator[StageScheduler]:
    """A scheduler of these stages on this machine; the lock file is sorted at the end."""
    jobs = jobs or count_cores()
    executor = LocalExecutor(jobs)
    try:
        with StageDisplay(len(names)) as display:
            yield StageScheduler(graph, names, executor, jobs, display)
    finally:
        executor.close()
        graph.sort_lock_file()
