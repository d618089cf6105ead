"""`python -m pipelines run`: bring all stages up to date, side by side."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.config.params import load_params
from densecl.runtime.hardware import count_cores
from densecl.runtime.locks import hold_lock
from pipelines.runtime import error_translation
from pipelines.runtime.own_python import put_python_first
from pipelines.runtime.signals import SIGNAL_FORWARDER
from pipelines.stages.dvc_graph import StageGraph

if TYPE_CHECKING:
    from pipelines.engines.executor import StageExecutor
    from pipelines.engines.scheduler import StageScheduler


def main(jobs: int | None) -> None:
    """Do what `dvc repro` does, with up to `jobs` stages at a time; None is the default."""
    load_params(paths.PARAMS)
    with error_translation.translate_errors(), hold_lock(paths.RETRAINING_LOCK):
        put_python_first()
        SIGNAL_FORWARDER.install_handlers()
        graph = StageGraph()
        if not graph.is_up_to_date():
            # Only here: without work, half of the time goes into imports.
            from pipelines.engines.local import LocalExecutor

            with (
                LocalExecutor(jobs or choose_jobs()) as executor,
                schedule_stages(graph, list(graph.stages), executor) as scheduler,
            ):
                scheduler.run()
    print(paths.REPORT_TABLE.read_text(encoding="utf-8"))
    print(paths.REPORT_PAGE)


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
