"""What stages need and leave travels by the DVC remote: outs of earlier stages there, then the run
of the stage and its outs back. The machine that has the project restores; it alone writes dvc.lock.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dvc.stage.run
import networkx
from dvc.stage.cache import StageCache, _get_stage_hash

from densecl import paths
from densecl.config.params import load_params
from densecl.errors import DenseclError, RetryLater
from pipelines.schemas import StageRef, StageResult
from pipelines.stages.dvc_graph import StageGraph

PUSH_DELAYS = (5, 30, 180)  # s
PLAN = "plan"  # each clone makes its own plan files: it links files that only the machine has


class CommandNeeded(DenseclError):
    """A stage that neither the project nor the remote has results of."""


class StageRunCache(StageCache):  # type: ignore[misc] # DVC has no types
    """DVC's run cache, of which only the runs of one stage travel: `--run-cache` moves all."""

    def __init__(self, repo: Any, stage: Any) -> None:
        super().__init__(repo)
        self.stage = stage

    def pull(self, remote: str | None, odb: Any = None) -> list[tuple[str, str]]:
        return self._move(odb or self._open_remote(remote), self.repo.cache.legacy)

    def push(self, remote: str | None, odb: Any = None) -> list[tuple[str, str]]:
        return self._move(self.repo.cache.legacy, odb or self._open_remote(remote))

    def _open_remote(self, remote: str | None) -> Any:
        return self.repo.cloud.get_remote_odb(remote, "--run-cache", hash_name="md5-dos2unix")

    def _move(self, source: Any, target: Any) -> list[tuple[str, str]]:
        """Copy the stage's runs on its dependencies as they are; each entry is small."""
        self.stage.save_deps()
        key = _get_stage_hash(self.stage)
        folder = source.fs.join(source.path, "runs", key[:2], key)
        if not source.fs.exists(folder):
            return []
        moved = []
        for path in source.fs.find(folder):
            name = source.fs.name(path)
            destination = target.fs.join(target.path, "runs", key[:2], key, name)
            target.fs.makedirs(target.fs.parent(destination), exist_ok=True)
            with source.fs.open(path, "rb") as file:
                target.fs.put_file(file, destination)
            moved.append((key, name))
        return moved


@contextmanager
def explain_remote_errors(action: str) -> Iterator[None]:
    """Raise the errors of a remote, of which each kind has its own, as one line that names it."""
    from dvc.exceptions import ReproductionError
    from dvc.lock import LockError

    try:
        yield
    except (DenseclError, LockError, ReproductionError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RetryLater(
            f"DVC remote: {action} failed: {reason[:300]}; run the same command again once it can "
            f"be reached"
        ) from error


def push_outs(graph: StageGraph, outs: Sequence[Any], reader: str) -> None:
    """Put outs that a job reads into the DVC remote."""
    if targets := [str(out.def_path) for out in outs]:
        with explain_remote_errors(f"pushing what {reader} reads"):
            graph.repo.push(targets=targets)


def pull_outs(graph: StageGraph, outs: Sequence[Any]) -> None:
    """Take outs that a job reads from the DVC remote."""
    if targets := [str(out.def_path) for out in outs]:
        with explain_remote_errors("pulling what the stages read"):
            graph.repo.pull(targets=targets)


def list_inputs(graph: StageGraph, names: Sequence[str]) -> list[Any]:
    """What the stages read that DVC holds: outs of all stages before them, since training also
    reads manifests that it does not depend on, to validate; and images.
    """
    upstream = networkx.DiGraph(graph.upstream)
    before = {u for n in names for u in networkx.descendants(upstream, n)} - {*names, PLAN}
    images = list_image_outs(graph, list_image_folders())
    return [
        out
        for out in graph.repo.index.outs
        if out in images or (out.use_cache and getattr(out.stage, "name", None) in before)
    ]


def list_image_outs(graph: StageGraph, roots: Sequence[Path]) -> list[Any]:
    """Outs that hold image folders of the project, or are in them."""
    return [
        out
        for out in graph.repo.index.outs
        if out.use_cache
        and getattr(out.stage, "name", None) != PLAN
        and any(
            root.is_relative_to(out.def_path) or Path(out.def_path).is_relative_to(root)
            for root in roots
        )
    ]


def list_image_folders() -> list[Path]:
    """Folders of images and masks inside the project; DenseclError for a relative one outside."""
    params = load_params(paths.PARAMS)
    named = [dataset.root for dataset in params.datasets.values()]
    for images in params.transfer.values():
        named += [images.root, *([images.masks] if images.masks else [])]
    for name in named:
        if ".." in Path(name).parts:
            raise DenseclError(
                f"{name}: found a relative path out of the project, which leads elsewhere from a "
                f"clone on another machine; name it in full"
            )
    return [Path(name) for name in named if not Path(name).is_absolute()]


def list_untracked_folders(graph: StageGraph) -> list[Path]:
    """Image folders inside the project that are in no out, so that DVC moves them nowhere."""
    outs = [Path(out.def_path) for out in graph.repo.index.outs if out.use_cache]
    return [
        root
        for root in list_image_folders()
        if not any(root.is_relative_to(out) or out.is_relative_to(root) for out in outs)
    ]


def restore_stage(graph: StageGraph, name: str) -> tuple[StageResult, StageRef]:
    """Bring a stage up to date without running it, by its run in the remote; CommandNeeded if there
    is none.
    """

    def forbid(stage: Any, **_: Any) -> None:
        raise CommandNeeded(
            f"{stage.addressing}: found no run of it in the DVC remote, for these files"
        )

    with (
        explain_remote_errors(f"fetching {name}"),
        _use_stage_run_cache(graph, name),
        _replace_command(forbid),
    ):
        return graph.update_stage(name, lambda: None, pull=True)


def run_stage(
    graph: StageGraph, name: str, on_start: Callable[[], None]
) -> tuple[StageResult, StageRef]:
    """Run a stage, or take its run from the remote, and push what it leaves."""
    with explain_remote_errors(f"pushing {name}"), _use_stage_run_cache(graph, name):
        done = graph.update_stage(name, on_start, pull=True)
        _push_outs(graph, name)
        return done


def _push_outs(graph: StageGraph, name: str) -> None:
    """Push what a stage left, again after PUSH_DELAYS: scratch may end with the job, and a training
    with it.
    """
    outs = [out.def_path for out in graph.stages[name].outs if out.use_cache]
    for delay in PUSH_DELAYS:
        try:
            graph.repo.push(targets=outs, run_cache=True)
        except Exception as error:  # each kind of remote has its own
            reason = " ".join(str(error).split())[:300]
            print(f"warning: pushing {name}: {reason}; again in {delay} s", file=sys.stderr)
            time.sleep(delay)
        else:
            return
    graph.repo.push(targets=outs, run_cache=True)


@contextmanager
def _use_stage_run_cache(graph: StageGraph, name: str) -> Iterator[None]:
    whole = graph.repo.stage_cache
    graph.repo.stage_cache = StageRunCache(graph.repo, graph.stages[name])
    try:
        yield
    finally:
        graph.repo.stage_cache = whole


@contextmanager
def _replace_command(function: Callable[..., None]) -> Iterator[None]:
    """Within the block, DVC calls this where it would run a stage's command."""
    run_command = dvc.stage.run.cmd_run
    dvc.stage.run.cmd_run = function
    try:
        yield
    finally:
        dvc.stage.run.cmd_run = run_command
