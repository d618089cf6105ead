"""`python -m pipelines worker`: bring stages up to date on this machine for the one that has the
project, which takes them from the DVC remote.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from densecl import paths
from densecl.config.params import load_params
from densecl.errors import EXIT_OK, EXIT_RETRY, DenseclError, Interrupted, RetryLater
from densecl.runtime.progress import PROGRESS_ENV
from densecl.runtime.signals import STOP_SIGNALS, exit_with_parent
from pipelines.engines import job
from pipelines.runtime import error_translation
from pipelines.runtime.own_python import put_python_first
from pipelines.runtime.signals import SIGNAL_FORWARDER

if TYPE_CHECKING:
    from pipelines.stages.dvc_graph import StageGraph

TRIAL, SCAN = "trial", "scan"  # no stages of the graph: of a sweep, and of shards for `prepare`
POLL = 0.2  # s
KILLED = (-9, 137)  # the latter of a process that it started


def main(stages: list[str], commit: str | None, lock: Path | None) -> None:
    """With a commit, work in a clone of it in scratch; without, in this folder, and push what the
    stages leave.
    """
    with error_translation.translate_errors():
        put_python_first()
        if commit is None:
            _update_here(stages)
        else:
            _update_in_clone(tuple(stages), commit, lock or paths.DVC_LOCK)


def _update_in_clone(stages: tuple[str, ...], commit: str, lock: Path) -> None:
    from pipelines.engines.publish import build_spec
    from pipelines.engines.snapshot import pack_commit, resolve_commit
    from pipelines.stages.dvc_graph import open_repo

    files = {paths.DVC_LOCK.as_posix(): lock.read_text(encoding="utf-8") if lock.exists() else ""}
    settings = load_params(paths.PARAMS).cluster
    commit = resolve_commit(commit)
    spec = build_spec(open_repo(), stages, commit, files, settings)._replace(log="", progress="")
    node_job = job.NodeJob(spec)

    def stop(number: int, _: object) -> None:
        node_job.stop()
        raise Interrupted(signal.Signals(number).name)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)
    result = node_job.run(pack_commit(commit))
    if result.status != EXIT_OK:
        error = RetryLater if result.status == EXIT_RETRY else DenseclError
        raise error(result.error or f"{stages[0]}: ended with status {result.status}")


def _update_here(stages: list[str]) -> None:
    from pipelines.stages.dvc_graph import StageGraph, get_stage_kind
    from pipelines.stages.transfer import PLAN, list_inputs, pull_outs, run_stage

    SIGNAL_FORWARDER.install_handlers()
    exit_with_parent()
    graph = StageGraph()
    _link_shared_folders(graph)
    if get_stage_kind(stages[0]) == TRIAL:
        from pipelines.engines.trial import run_trial

        run_trial(graph, stages[0])
        return
    if get_stage_kind(stages[0]) == SCAN:
        run_step(stages[0], "scan", paths.get_scanned_dataset(stages[0]))
        return
    if unknown := set(stages) - set(graph.stages):
        raise DenseclError(
            f"{min(unknown)}: found no such stage, expected some of "
            f"{', '.join(list(graph.stages)[:6])}, ...; `dvc stage list` names all"
        )
    if PLAN in graph.stages:
        graph.update_stage(PLAN, lambda: None)
    pull_outs(graph, list_inputs(graph, stages))
    outcomes: dict[str, tuple[str, float]] = {}
    for name in stages:
        started = time.monotonic()
        result, _ = run_stage(graph, name, lambda name=name: announce(name))  # type: ignore[misc]
        outcomes[name] = (result, time.monotonic() - started)
        Path(job.OUTCOMES).parent.mkdir(exist_ok=True)
        Path(job.OUTCOMES).write_text(json.dumps(outcomes), encoding="utf-8")


def run_step(name: str, *arguments: str) -> None:
    """Run a command of `steps` that is no stage of the graph.

    SystemExit with its status where that is not 0; it has said why. RetryLater if it was killed or
    a signal has come.
    """
    announce(name)
    SIGNAL_FORWARDER.raise_if_signalled()
    process = subprocess.Popen([sys.executable, "-m", "steps", *arguments])
    while (status := process.poll()) is None:
        if SIGNAL_FORWARDER.received:  # also in the moment of the start
            SIGNAL_FORWARDER.terminate_children()
        time.sleep(POLL)
    if status in KILLED:
        raise RetryLater(f"{name}: its process was killed, as where memory runs out")
    if status != EXIT_OK:
        raise SystemExit(status)


def announce(name: str) -> None:
    """Tell the machine that waits, and the log, that a stage has started."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    if progress := os.environ.get(PROGRESS_ENV):
        Path(progress).touch()


def _link_shared_folders(graph: "StageGraph") -> None:
    """Have checkpoints, and where the node sees the project also kept predictions, kept scans and
    images that DVC does not hold, in the folders that outlast this clone.
    """
    if checkpoints := os.environ.get(job.CHECKPOINTS_ENV):
        _link(paths.CHECKPOINTS, Path(checkpoints))
    if not (project := os.environ.get(job.PROJECT_ENV)):
        return
    from pipelines.stages.transfer import list_untracked_folders

    cells = load_params(paths.PARAMS).evaluate.cell_cache
    if cells and "://" not in cells:
        _link(Path(cells), Path(project, cells))
    for folder in (paths.LISTINGS, paths.SCANS):
        _link(folder, Path(project, folder))
    for folder in list_untracked_folders(graph):
        if Path(project, folder).is_dir():
            _link(folder, Path(project, folder))


def _link(place: Path, target: Path) -> None:
    if place.is_absolute() or place.exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
